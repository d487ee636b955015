"""Layers that are not unpacked: an EROFS image that is an index of the layer's tar.

    builder     the tar's headers, as they stream by → a tree in memory; decides as the extractor does
    tree        that tree: inodes as the image has them, names, links, paths
    attributes  extended attributes as a file system would take them
    image       the tree → the image
    format      the on-disk structures (kernel Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h)

The image holds inodes and directories. The content of files is the tar's, where it lies: the image's block is 512
bytes, as the tar's, and the tar is its second device. The kernel's parser sees nothing that was not written here.
"""


class Unsuitable(Exception):
    """An archive that may be good, but not for an index; the reason is the text. It is to be unpacked as a tree."""

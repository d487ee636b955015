"""The kernel's interfaces as thin typed functions. ctypes lives here and nowhere else; standard library only."""

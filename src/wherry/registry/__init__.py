"""A client of image registries: OCI distribution 1.1 and what Docker's registries add to it.

    client        Registry: what the engine holds; login and search
    repository    Repository: one repository, its manifests, tags and blobs, from mirrors and the registry itself
    blobs         reading a blob, across broken connections
    endpoints     where a repository is asked for: mirrors, hosts.toml, insecure registries
    auth          challenges and tokens
    transport     requests over kept connections; redirects
    dial          sockets: addresses, proxies, TLS
    cancel        breaking off what is under way

Blocking code, for worker threads. Whatever a registry says is taken for hostile.
"""

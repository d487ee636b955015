"""HTTP/1.1 on raw connections: bytes in, events out; server, client, TLS, hijack, WebSocket, stdcopy."""

"""Says Hello to whoever asks, on port 5000; the environment variable PROVIDER says to whom."""

import os
import signal
import socket
import threading


def serve(connection):
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            more = connection.recv(4096)
            if not more:
                return
            request += more
        body = "Hello {}!".format(os.environ.get("PROVIDER", "world")).encode()
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        connection.sendall((head % len(body)).encode() + body)


def main():
    # The first process of a container has no default action: without this, every stop would wait for its grace period.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", int(os.environ.get("PORT", "5000"))))
    listener.listen(128)
    print(" * Running on http://0.0.0.0:5000/", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


main()

"""A counter behind TCP: a line `add AMOUNT` or `add AMOUNT ID` adds, `total` asks; both are answered with the
total. A request whose ID has been seen is not added again. It runs in the guest: Python 3.6, no packages."""

import socketserver
import sys
import threading

LOCK, SEEN, TOTAL = threading.Lock(), set(), [0]


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            words = line.decode().split()
            with LOCK:
                if words[:1] == ["add"] and (len(words) < 3 or words[2] not in SEEN):
                    SEEN.update(words[2:3])
                    TOTAL[0] += int(words[1])
                answer = TOTAL[0]
            self.wfile.write(b"%d\n" % answer)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


if __name__ == "__main__":
    Server(("", int(sys.argv[1])), Handler).serve_forever()

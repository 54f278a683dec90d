"""A worker that does as it is told: echoes, sleeps, dies, or babbles."""

import json
import os
import sys
import time

if "slow-start" in sys.argv:
    time.sleep(60)
if "stillborn" in sys.argv:
    sys.exit(1)
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "hang":
        while True:
            time.sleep(1)
    if request["do"] == "end":
        os.kill(os.getpid(), request["signal"])
        time.sleep(60)
    if request["do"] == "die":
        os._exit(3)
    if request["do"] == "half":
        sys.stdout.write('{"cut')
        sys.stdout.flush()
        os._exit(0)
    if request["do"] == "fail":
        print(json.dumps({"error": "ZeroDivisionError"}), flush=True)
        continue
    time.sleep(request.get("seconds", 0))
    print(json.dumps({"echo": request["do"], "process": os.getpid()}), flush=True)
    if request["do"] == "last words":
        os._exit(0)

"""A function that a host serves in tests: what it does is in the event's `do`."""

APP = """
import os
import random
import sys
import threading
import time

import torch

import tidalctl

COUNT = []


@tidalctl.init(static=True)
def load():
    torch.manual_seed(3)
    return torch.nn.Linear(8, 8)


def stream(event):
    for number in range(event["count"]):
        if number == event.get("raise_at"):
            raise ValueError("amid")
        if number == event.get("die_at"):
            os._exit(7)
        yield number
        time.sleep(event.get("wait", 0))


def handler(event, context):
    do = event["do"]
    if do == "stream":
        return stream(event)
    if do == "raise":
        raise ValueError("not this one")
    if do == "exit":
        os._exit(3)
    if do == "sys.exit":
        sys.exit(4)
    if do == "die":
        os.kill(os.getpid(), 9)
    if do == "hang":
        time.sleep(60)
    if do == "close":
        os.closerange(3, 1024)
    if do == "print":
        print("printed", flush=True)
    if do == "forks":
        if not os.fork():
            time.sleep(60)
    if do == "thread":
        threading.Thread(target=time.sleep, args=(0.2,)).start()
    model = load()
    with torch.no_grad():
        total = model(torch.ones(8)).sum().item()
    COUNT.append(1)
    os.environ["LEFT"] = os.environ.get("LEFT", "") + "x"
    model.weight.data.zero_()
    return {
        "total": total,
        "torch": torch.rand(1).item(),
        "random": random.random(),
        "count": len(COUNT),
        "left": os.environ["LEFT"],
        "remaining": context.get_remaining_time_in_millis() > 0,
        "id": context.aws_request_id,
        "custom": context.client_context.custom if context.client_context else None,
        "given": event.get("given"),
    }
"""

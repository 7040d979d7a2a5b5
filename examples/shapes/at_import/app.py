"""A model that is made while the module is imported, as on AWS Lambda: nothing is marked."""

import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Embedding(256, 512), torch.nn.Linear(512, 256)).eval()


def handler(event, context):
    text = list(event["text"].encode())
    with torch.no_grad():
        return {"next": int(model(torch.tensor(text)).mean(0).argmax())}

"""A SageMaker inference script. `SM_MODEL_DIR` says where the model lies, if not in /opt/ml/model; `python inference.py` makes one."""

import json
import os

import torch


def network():
    return torch.nn.Sequential(torch.nn.Embedding(256, 512), torch.nn.Linear(512, 256)).eval()


def model_fn(model_dir):
    model = network()
    model.load_state_dict(torch.load(os.path.join(model_dir, "model.pt"), weights_only=True))
    return model


def input_fn(request_body, content_type):
    if content_type != "application/json":
        raise ValueError(f"{content_type} is not application/json")
    return torch.tensor(list(json.loads(request_body)["text"].encode()))


def predict_fn(data, model):
    with torch.inference_mode():
        return model(data).mean(0).argmax()


def output_fn(prediction, accept):
    return json.dumps({"next": prediction.item()})


if __name__ == "__main__":
    torch.manual_seed(0)
    os.makedirs(os.environ["SM_MODEL_DIR"], exist_ok=True)
    torch.save(network().state_dict(), os.path.join(os.environ["SM_MODEL_DIR"], "model.pt"))

"""A LitServe API. With LitServe's own names: `class Next(ls.LitAPI)`, and `ls.LitServer(Next()).run()` under `__main__`."""

import torch


class Next:
    def setup(self, device):
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Embedding(256, 512), torch.nn.Linear(512, 256)).eval().to(device)
        self.device = device

    def decode_request(self, request):
        return torch.tensor(list(request["text"].encode()), device=self.device)

    def predict(self, tokens):
        with torch.inference_mode():
            return self.model(tokens).mean(0).argmax()

    def encode_response(self, output):
        return {"next": output.item()}

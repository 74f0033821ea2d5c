"""How many weights of an SDGM head go at the Bayesian price, and what that costs: the 8 x 8 digits, raw pixels.

Ten draws of a stratified 60 / 20 / 20 split; diagonal map, two components a digit, Adam at 1e-2 with a half cosine,
batches of 64, 200 epochs; the price of the divergence rises from 0 to 1 / N over the first half. Nothing is chosen by
the validation part. The same head without the price is the rival; test rows are looked at once, at the end.

    python benchmarks/sdgm_digits.py
"""

import numpy as np
import torch
from common import arguments, write
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional

from mixtura.heads.sdgm import SDGMHead

DRAWS, EPOCHS, BATCH, RATE = 10, 200, 64, 1e-2


def split(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x, y = load_digits(return_X_y=True)
    x, rest, y, of_rest = train_test_split(x, y, test_size=0.4, stratify=y, random_state=seed)
    _, test, _, of_test = train_test_split(rest, of_rest, test_size=0.5, stratify=of_rest, random_state=seed)
    return torch.tensor(x).float(), torch.tensor(y), torch.tensor(test).float(), torch.tensor(of_test)


def trained(x: torch.Tensor, y: torch.Tensor, seed: int, price: float) -> SDGMHead:
    torch.manual_seed(seed)
    head = SDGMHead.from_rows(x, y, 10, components=2, seed=seed)
    adam = torch.optim.Adam(head.parameters(), RATE)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, EPOCHS * -(-len(x) // BATCH))
    head.train()
    for epoch in range(EPOCHS):
        share = price * min(1.0, 2 * epoch / EPOCHS) / len(x)
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = functional.nll_loss(head(x[rows]), y[rows]) + share * head.penalty()
            adam.zero_grad()
            loss.backward()
            adam.step()
            cosine.step()
    return head.eval()


@torch.inference_mode()
def figures(head: SDGMHead, x: torch.Tensor, test: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    compact = head.compressed(x)
    log_posterior = head(test)
    return {
        "accuracy": 100 * float((log_posterior.argmax(1) == truth).double().mean()),
        "nll": float(functional.nll_loss(log_posterior, truth)),
        "pruned": 100 * head.sparsity,
        "parameters": head.n_parameters,
        "parameters compact": compact.n_parameters,
        "components compact": sum(compact.counts),
        "compact differs by": float((compact(test).exp() - log_posterior.exp()).abs().max()),
    }


def draw(seed: int) -> dict[str, dict[str, float]]:
    x, y, test, truth = split(seed)
    return {
        name: figures(trained(x, y, seed, price), x, test, truth) for name, price in (("free", 0.0), ("priced", 1.0))
    }


def main() -> None:
    arguments(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    draws = [draw(seed) for seed in range(DRAWS)]
    summary = {}
    for name in ("free", "priced"):
        summary[name] = {
            key: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
            for key in draws[0][name]
            for values in [[d[name][key] for d in draws]]
        }
    cost = [d["free"]["accuracy"] - d["priced"]["accuracy"] for d in draws]
    loss = {"mean": float(np.mean(cost)), "standard error": float(np.std(cost, ddof=1) / DRAWS**0.5)}
    for name, figure in summary.items():
        print(name, "  ".join(f"{key} {value['mean']:.4g} ± {value['sd']:.2g}" for key, value in figure.items()))
    print(f"points of accuracy that pruning costs: {loss['mean']:.2f} ± {loss['standard error']:.2f}")
    write("sdgm_digits", {"draws": DRAWS, "epochs": EPOCHS, "figures": summary, "cost": loss, "by draw": draws})


if __name__ == "__main__":
    main()

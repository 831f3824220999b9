"""Build the real policies on Qwen2.5-Coder-0.5B-Instruct.

    python data/qwen/build.py --base FILE.gguf --sources FOLDER

Needs `pip install -e ".[train]"`. A stage takes under 90 minutes on two CPU cores and adds its figures to
`figures.json`, so that an interrupted build continues, also from a fresh clone: stages with figures are not repeated.
`--again STAGE` repeats a stage and all later ones; `--only STAGE` runs a single one. Seeds are fixed. `--sources` holds
the public files that `sources.py` names. The work folder holds what later stages read and the repository does not.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[0] = str(ROOT)  # run as a script: the packages are beside data/, not beside this file

import numpy as np  # noqa: E402
import torch  # noqa: E402
import typer  # noqa: E402

from data.qwen import card, heads, layers, sampling, sources, training  # noqa: E402
from data.qwen.layers import Group  # noqa: E402
from engine import Engine, Sampling  # noqa: E402
from engine.bank import collection  # noqa: E402
from engine.bank.storage import BankFile  # noqa: E402
from engine.config import load_config  # noqa: E402
from engine.evaluation import baselines  # noqa: E402
from engine.evaluation.response_log import Memo  # noqa: E402
from engine.prompts import read_prompts  # noqa: E402
from engine.rewards.linear_head import Head, save_head  # noqa: E402
from engine.rewards.reward_set import RewardSet  # noqa: E402

CONFIG = ROOT / "data" / "configs" / "qwen.yaml"
FIGURES = HERE / "figures.json"
PROMPTS = ROOT / "data" / "prompts" / "qwen.jsonl"
BASE = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
# Prompts of fold A: what the base answers for the reference to learn from, and what the policies learn on.
PLAIN = {"hh": 60, "xstest": 45, "self-instruct": 100, "vicuna": 10}
SAMPLED = {"hh": 60, "xstest": 55, "self-instruct": 60, "vicuna": 15, "authored": 50}
MEASURED = {"hh": 60, "xstest": 100, "self-instruct": 102, "vicuna": 58}  # of fold C
PER_PROMPT = 4
HELD_OUT = 28  # of the sampled prompts: their slopes say when a policy stops
FEATURES = {
    "helpful": ("mean", "last"),
    "harmless": ("mean", "last"),
    "humorous": ("mean",),
    "concise": ("mean", "last"),
}
LAYER = dict(zip("AB", heads.LAYERS, strict=True))  # that the heads of a fold read
PENALTY = 1e-3
METHODS = "helpful,harmless,humorous,concise,uniform,soup,mpo"
SLOPE = 1.8  # of every policy
BETA = 0.4  # whose optimum has the slope 2.5
STEPS = {"helpful": 64, "harmless": 192, "humorous": 96, "concise": 64}  # the harmless head is the hardest to learn


class Build:
    """The stages of the build; each returns a dictionary of figures for the model card."""

    def __init__(self, base: str, folder: Path, work: Path, out: Path) -> None:
        self.base, self.folder, self.work, self.out = base, folder, work, out

    def stages(self) -> dict[str, tuple[Any, ...]]:
        """Return {name: (method, *arguments)} in the order of execution."""
        return {
            "plain": (self.plain,),
            "reference": (self.reference,),
            "samples": (self.samples,),
            "texts-A": (self.texts, "A"),
            "heads": (self.heads, "A", "rewards"),
            "scores": (self.scores,),
            **{f"policy-{name}": (self.policy, name) for name in heads.OBJECTIVES},
            "prompts": (self.prompts,),
            "bank": (self.bank,),
            "texts-B": (self.texts, "B"),
            "judges": (self.heads, "B", "judges"),
            "evaluation": (self.evaluation,),
            "card": (self.card,),
        }

    def plain(self) -> dict[str, Any]:
        """Sample the base's answers, which the reference learns from in order to keep the base's knowledge."""
        model, tokenizer = training.load(self.base)
        prompts = [asked.prompt for asked in sources.prompts(self.folder, "A", PLAIN)]
        rows = sampling.sample(model, tokenizer, prompts, 1, self.work / "plain.jsonl", 0, temperature=0.7, min_p=0.1)
        return {"responses": len(rows)}

    def reference(self) -> dict[str, Any]:
        """Train the reference on the authored answers and the base's own."""
        _, tokenizer = training.load(self.base)
        groups = training.demonstrations(tokenizer, read(self.work / "plain.jsonl"))
        figures = training.train_reference(self.base, BASE, groups, self.out / "reference", rate=5e-4)
        return {"prompts": len(groups), "tokens": sum(map(len, groups)), **figures}

    def samples(self) -> dict[str, Any]:
        """Sample the reference's responses, for the policies' training."""
        model, tokenizer = training.load(self.base, [self.out / "reference"])
        prompts = [asked.prompt for asked in sources.prompts(self.folder, "A", SAMPLED)]
        rows = sampling.sample(model, tokenizer, prompts, PER_PROMPT, self.work / "samples.jsonl", 1000)
        return {"prompts": len(rows), "tokens": sum(len(ids) for row in rows for ids in row["tokens"])}

    def texts(self, fold: str) -> dict[str, Any]:
        """Compute the base's features of a fold's labelled texts, up to the layer that its heads read."""
        model, tokenizer = training.load(self.base)
        texts = heads.collect(self.folder, fold)
        found = heads.features(model.model, tokenizer, texts.items, LAYER[fold])
        with (self.work / f"texts-{fold}.pkl").open("wb") as file:
            pickle.dump((texts, {key: value.numpy() for key, value in found.items()}), file)
        return {"texts": len(texts.items), "pairs": {name: len(pairs) for name, pairs in texts.pairs.items()}}

    def heads(self, fold: str, folder: str) -> dict[str, Any]:
        """Fit heads on three quarters of a fold's prompts for their held-out accuracy, then on all of them."""
        with (self.work / f"texts-{fold}.pkl").open("rb") as file:
            texts, found = pickle.load(file)
        figures: dict[str, dict[str, float]] = {}
        for name in heads.OBJECTIVES:
            wanted = [(LAYER[fold], pool) for pool in FEATURES[name]]
            x = np.concatenate([found[key] for key in wanted], 1).astype(np.float64)
            kept = [pair for pair in texts.pairs[name] if sources.unit("check", texts.items[pair[0]][0]) < 0.75]
            left = [pair for pair in texts.pairs[name] if sources.unit("check", texts.items[pair[0]][0]) >= 0.75]
            figures[name] = {"pairs": len(texts.pairs[name])}
            figures[name]["held_out_accuracy"] = heads.accuracy(heads.fit(x, kept, PENALTY), x, left)
            fitted = heads.fit(x, texts.pairs[name], PENALTY)
            head = Head(
                BASE,
                tuple(wanted),
                torch.tensor(fitted.weight).float(),
                torch.tensor([fitted.bias]).float(),
                x.shape[1] // len(wanted),
            )
            save_head(self.out / folder / name, head)
        return figures

    def scores(self) -> dict[str, Any]:
        """Compute the samples' rewards, and their log-probabilities under the reference."""
        from engine.rewards.linear_head import read_head  # what serves reads the heads

        model, tokenizer = training.load(self.base)
        rows = read(self.work / "samples.jsonl")
        items = [(row["prompt"], text) for row in rows for text in row["responses"]]
        found = heads.features(model.model, tokenizer, items, heads.LAYERS[0])
        rewards = {name: read_head(self.out / "rewards" / name).score(found) for name in heads.OBJECTIVES}
        model, _ = training.load(self.base, [self.out / "reference"])
        groups = groups_of(rows, tokenizer)
        examples = training.Examples(groups, training.lower_halves(model.model, groups))
        scores = {"rewards": rewards, "log_probs": training.log_probs(model.model, model.lm_head, examples)}
        torch.save({**scores, "halves": examples.halves}, self.work / "scores.pt")
        words = torch.tensor([float(len(text.split())) for _, text in items])
        every = torch.stack([rewards[name] for name in heads.OBJECTIVES] + [words])
        return {
            "mean": {name: float(value.mean()) for name, value in rewards.items()},
            "std": {name: float(value.std()) for name, value in rewards.items()},
            "correlations": torch.corrcoef(every).tolist(),
            "words": float(words.mean()),
        }

    def policy(self, objective: str) -> dict[str, Any]:
        """Train the policy of an objective."""
        rows, scores = read(self.work / "samples.jsonl"), torch.load(self.work / "scores.pt")
        _, tokenizer = training.load(self.base)
        reward = scores["rewards"][objective]
        standard = ((reward - reward.mean()) / reward.std()).split(PER_PROMPT)
        groups = groups_of(rows, tokenizer)
        examples = training.Examples(groups, scores["halves"], list(standard), scores["log_probs"])
        return training.train_policy(
            self.base,
            BASE,
            self.out / "reference",
            examples.part(range(HELD_OUT, len(groups))),
            examples.part(range(HELD_OUT)),
            self.out / objective,
            target=SLOPE,
            beta=BETA,
            steps=STEPS[objective],
            every=STEPS[objective] // 4,
        )

    def prompts(self) -> dict[str, Any]:
        """Write the page's prompts and the evaluation's.

        The page's are authored prompts that no policy was trained on. The evaluation's go to the work folder, preceded
        by those of the page's prompts from which weights are found.
        """
        own = [{"prompt": asked.prompt} for asked in sources.prompts(self.folder, "B", {"authored": 100})]
        measured = [
            {"prompt": asked.prompt, "source": asked.source, "kind": asked.kind}
            for asked in sources.prompts(self.folder, "C", MEASURED)
        ]
        write(PROMPTS, own)
        write(self.work / "measured.jsonl", [*own[: collection.PROMPTS], *measured])
        return {"page": len(own), "measured": len(measured)}

    def bank(self) -> dict[str, Any]:
        """Sample and bundle the bank. Needs the base in the user's cache: `python -m engine fetch qwen`."""
        for stale in (CONFIG.parent / "banks").glob("qwen-*.jsonl"):
            stale.unlink()
        with Engine.from_config(CONFIG) as engine:
            file = BankFile(engine.config, collection.SAMPLING, collection.proposals(engine))
            asked = read_prompts(PROMPTS)[: collection.PROMPTS]
            found = collection.collect(engine, asked, collection.RESPONSES, collection.SAMPLING, file=file)
            file.ship(asked)
        return {"policy_tokens": found.policy_tokens}

    def evaluation(self) -> dict[str, Any]:
        """Run `engine evaluate --methods` on fold C, by the reward heads and by the judges."""
        asked = read_prompts(self.work / "measured.jsonl")
        with Engine.from_config(CONFIG) as engine:
            judges = RewardSet(load_config(self.out / "judges.yaml").rewards, engine.policy_set)
            result = baselines.compare(
                *(
                    engine,
                    asked[collection.PROMPTS :],
                    asked[: collection.PROMPTS],
                    Sampling(160, 0.7, min_p=0.1),
                    METHODS,
                ),
                judges=judges,
                memo=Memo(self.work / "responses.jsonl"),
            )
        (self.out / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        return {"prompts": result["n_prompts"]}

    def card(self) -> dict[str, Any]:
        """Write the measured part of the model card."""
        measured = read(self.work / "measured.jsonl")[collection.PROMPTS :]
        return card.write(FIGURES, self.work / "responses.jsonl", measured)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines. Raises FileNotFoundError that names the stage which writes the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; repeat its stage: --again {path.stem}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def groups_of(rows: list[dict[str, Any]], tokenizer: Any) -> list[Group]:
    """Return the rows' prompts and responses as groups of token ids."""
    return [Group(layers.prefix_of(tokenizer, row["prompt"]), row["tokens"]) for row in rows]


def main(
    base: Annotated[str, typer.Option(help="the base: a GGUF file, or a folder in transformers' format")],
    sources_folder: Annotated[Path, typer.Option("--sources", help="the folder with the public files")],
    work: Annotated[Path, typer.Option(help="what is needed only while building")] = ROOT / "build" / "qwen",
    again: Annotated[str | None, typer.Option(help="repeat this stage and all after it")] = None,
    only: Annotated[str | None, typer.Option(help="do only this stage")] = None,
) -> None:
    """Build the real policies; finished stages are not repeated."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    work.mkdir(parents=True, exist_ok=True)
    if Path(base).is_file():
        from engine.models.gguf import folder_of

        base = folder_of(base, torch.float32)
    build = Build(base, sources_folder, work, HERE)
    stages = build.stages()
    for name in (again, only):
        if name is not None and name not in stages:
            raise typer.BadParameter(f"no stage is called '{name}'; there are {', '.join(stages)}")
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    if again:
        for name in list(stages)[list(stages).index(again) :]:
            figures.pop(name, None)
            (work / f"{name}.jsonl").unlink(missing_ok=True)
            shutil.rmtree(HERE / name.removeprefix("policy-"), ignore_errors=True)
    for name, (stage, *arguments) in stages.items():
        if only is not None and name != only:
            continue
        if name not in figures:
            logging.info("%s ...", name)
            began = time.monotonic()
            figures[name] = {**stage(*arguments), "seconds": round(time.monotonic() - began)}
            FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        logging.info("%s: done", name)


if __name__ == "__main__":
    typer.run(main)

"""Conversations of several turns, against the chat template by hand and transformers' own forward pass."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from engine import Engine, InputError, Sampling
from engine.messages import check_messages, spoken_messages
from tests.conftest import Tiny
from tests.engine.cli.test_cli import run

TURNS = [
    {"role": "user", "content": "mix the policies"},
    {"role": "assistant", "content": "the lazy dog"},
    {"role": "user", "content": "and move"},
    {"role": "assistant", "content": "Grüße an alle"},
    {"role": "user", "content": "the faders {prompt}"},
]
RESPONSE = "quick brown fox"


def test_every_policy_reads_all_messages_in_the_chat_template(tiny: Tiny) -> None:
    policies = [
        {"name": "plain", "objective": "plain", "adapter": "plain"},
        {"name": "terse", "objective": "plain", "system_prompt": "be brief", "prefix": "Q: "},
    ]
    with Engine.from_config(tiny.write("told.yaml", policies=policies)) as engine:
        ids = engine.check_prompt(TURNS, 10)
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    plain = tokenizer.apply_chat_template(TURNS, add_generation_prompt=True, return_dict=False)
    assert ids["reference"] == ids["plain"] == plain
    assert tokenizer.decode(plain).count("<|user|>") == 3
    told = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Q: mix the policies"}, *TURNS[1:]]
    assert ids["terse"] == tokenizer.apply_chat_template(told, add_generation_prompt=True, return_dict=False)


def test_log_probs_equal_a_plain_forward_pass(tiny: Tiny, tiny_engine: Engine) -> None:
    found = tiny_engine.token_log_probs(TURNS, RESPONSE)
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    whole = [*TURNS, {"role": "assistant", "content": RESPONSE}]
    ids = tokenizer.apply_chat_template(whole, return_dict=True, return_tensors="pt")["input_ids"]
    count = len(tokenizer(RESPONSE).input_ids) + 1
    base = AutoModelForCausalLM.from_pretrained(tiny.base).eval()
    models = {"reference": lambda: base, "narrow": lambda: PeftModel.from_pretrained(base, tiny.adapters["narrow"])}
    for name, model in models.items():
        with torch.no_grad():
            log_probs = model()(input_ids=ids).logits[0].log_softmax(-1)
        theirs = [log_probs[i - 1, ids[0, i]].item() for i in range(ids.shape[1] - count, ids.shape[1])]
        assert found[name] == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_what_is_generated_goes_on_from_the_whole_conversation(tiny_engine: Engine, temperature: float) -> None:
    settings = {"weights": {"plain": 2, "narrow": 1}, "max_new_tokens": 12, "temperature": temperature, "seed": 5}
    made = tiny_engine.generate(TURNS, **settings)
    assert made.prompt == TURNS
    assert made.as_dict()["prompt"] == TURNS
    forced = tiny_engine.token_log_probs(TURNS, made.tokens)
    for name, values in forced.items():
        assert [step[name] for step in made.trace] == pytest.approx(values, abs=1e-3)
    assert [token.id for token in tiny_engine.stream(TURNS, **settings)] == made.tokens
    assert tiny_engine.generate(TURNS[-1]["content"], **settings).tokens != made.tokens
    # A branch reads the same conversation.
    sampling = Sampling(max_new_tokens=12, temperature=0.0)
    branch = tiny_engine.submit(TURNS, made.mixture, sampling, tokens=made.tokens[:3]).completion()
    assert branch.trace[0] == pytest.approx(made.trace[0], abs=1e-4)


def test_particles_take_a_conversation(tiny_engine: Engine) -> None:
    settings = {"weights": {"plain": 1, "narrow": 1}, "max_new_tokens": 6, "temperature": 0.9, "seed": 3}
    made = tiny_engine.generate(TURNS, particles=4, **settings)
    assert made.tokens == tiny_engine.generate(TURNS, particles=4, **settings).tokens
    assert made.tokens != tiny_engine.generate(TURNS[:1], particles=4, **settings).tokens


def test_one_message_is_its_text(tiny_engine: Engine) -> None:
    settings = {"max_new_tokens": 8, "temperature": 0.9, "seed": 1}
    one, text = tiny_engine.generate(TURNS[:1], **settings), tiny_engine.generate("mix the policies", **settings)
    assert (one.prompt, one.tokens) == (text.prompt, text.tokens)


def test_a_base_without_a_chat_template_reads_the_messages_one_after_the_other(tiny: Tiny, tmp_path) -> None:
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny.base).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(base)
    policies = [{"name": "terse", "objective": "terse", "system_prompt": "be brief", "prefix": "Q: "}]
    with Engine.from_config(tiny.write("bare.yaml", base=str(base), policies=policies, rewards=[])) as engine:
        ids, one = engine.check_prompt(TURNS, 10), engine.check_prompt("mix", 10)
    text = "mix the policies\n\nthe lazy dog\n\nand move\n\nGrüße an alle\n\nthe faders {prompt}"
    assert ids["reference"] == tokenizer(text).input_ids
    assert ids["terse"] == tokenizer(f"be brief\n\nQ: {text}").input_ids
    assert one["reference"] == tokenizer("mix").input_ids


SYSTEM = {"role": "system", "content": "answer in rhyme<|end|>"}


@pytest.mark.parametrize(
    ("before", "reads"),
    [
        ("", True),
        ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}", False),
        ("{% set messages = messages if messages[0]['role'] != 'system' else messages[1:] %}", False),
        (None, False),
    ],
    ids=["reads it", "refuses it", "leaves it out", "no template"],
)
def test_a_system_message_comes_after_a_policys_own(tiny: Tiny, tmp_path, before: str | None, reads: bool) -> None:
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny.base).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    tokenizer.chat_template = None if before is None else before + tokenizer.chat_template
    tokenizer.save_pretrained(base)
    policies = [{"name": "terse", "objective": "terse", "system_prompt": "be brief", "prefix": "Q: "}]
    with Engine.from_config(tiny.write("system.yaml", base=str(base), policies=policies, rewards=[])) as engine:
        ids = engine.check_prompt([SYSTEM, *TURNS[:3]], 10)
        single = engine.generate([SYSTEM, TURNS[0]], max_new_tokens=3)
        texts = {name: engine.detokenize(found) for name, found in ids.items()}
        control = tokenizer.convert_tokens_to_ids("<|end|>")
        # A control token in a message is text, as in all messages.
        assert ids["reference"].count(control) == (0 if before is None else 4 if reads else 3)
    assert single.prompt == [SYSTEM, TURNS[0]]
    told = SYSTEM["content"]
    if reads:
        assert texts["reference"].startswith(f"<|system|>{told}<|end|><|user|>mix the policies<|end|>")
        assert texts["terse"].startswith(f"<|system|>be brief\n\n{told}<|end|><|user|>Q: mix the policies<|end|>")
    else:
        start = "" if before is None else "<|user|>"
        assert texts["reference"].startswith(f"{start}{told}\n\nmix the policies")
        assert texts["terse"].startswith(f"{start}be brief\n\n{told}\n\nQ: mix the policies")


def test_rewards_do_not_read_a_system_message(tiny_engine: Engine) -> None:
    assert spoken_messages([SYSTEM, *TURNS[:3]]) == TURNS[:3]
    assert spoken_messages("mix") == [{"role": "user", "content": "mix"}]
    rewards = tiny_engine.generate([SYSTEM, TURNS[0]], max_new_tokens=3).rewards
    assert set(rewards) == {"plain", "narrow"}


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([SYSTEM], "its last message is a system message"),
        ([{**SYSTEM, "content": " "}, TURNS[0]], "message 1: it is empty"),
        ([TURNS[0], SYSTEM, TURNS[0]], "message 2: the role is 'system', expected 'assistant'"),
        ([SYSTEM, SYSTEM, TURNS[0]], "message 2: the role is 'system', expected 'user'"),
        ([SYSTEM, TURNS[0], TURNS[0]], "message 3: the role is 'user', expected 'assistant'"),
    ],
)
def test_a_system_message_is_the_first_of_several(tiny_engine: Engine, prompt: list, words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny_engine.check_prompt(prompt, 1)


def test_a_template_that_refuses_is_told(tiny: Tiny, tmp_path) -> None:
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny.base).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    refuses = "{% if messages|length > 3 %}{{ raise_exception('too many\nmessages') }}{% endif %}"
    no_system = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer.chat_template = refuses + no_system + tokenizer.chat_template
    tokenizer.save_pretrained(base)
    policies = [{"name": "terse", "objective": "terse", "system_prompt": "be brief"}]
    with Engine.from_config(tiny.write("refuses.yaml", base=str(base), policies=policies, rewards=[])) as engine:
        ids = engine.check_prompt(TURNS[:3], 10)
        with pytest.raises(InputError, match=r"prompt: the model's chat template refuses it: too many$"):
            engine.check_prompt(TURNS, 10)
    told = [{"role": "user", "content": "be brief\n\nmix the policies"}, *TURNS[1:3]]
    assert ids["terse"] == tokenizer.apply_chat_template(told, add_generation_prompt=True, return_dict=False)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([], "it has no messages"),
        (None, "found NoneType; give a text"),
        ({"role": "user", "content": "a"}, "found dict; give a text"),
        (["mix"], "message 1: expected"),
        ([{"role": "user"}], "message 1: expected"),
        ([{"role": "tool", "content": "a"}], "message 1: the role is 'tool', expected 'user'"),
        ([TURNS[0], TURNS[0]], "message 2: the role is 'user', expected 'assistant'"),
        (TURNS[1:], "message 1: the role is 'assistant', expected 'user'"),
        (TURNS[:4], "its last message is the assistant's"),
        ([*TURNS[:1], {"role": "assistant", "content": " \n"}, *TURNS[2:]], "message 2: it is empty"),
        ([{"role": "user", "content": 3}], "message 1: the content is int"),
        ([*TURNS[:4], {"role": "user", "content": "half \ud83d"}], "message 5: it holds half a character"),
        ([*TURNS, {"role": "assistant", "content": "word " * 200}, TURNS[0]], "tokens long.*or leave out turns"),
        ([*TURNS[:4], {"role": "user", "content": "word " * 20_000}], "100,0.. characters long"),
    ],
)
def test_mistakes_are_one_line(tiny_engine: Engine, prompt, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        tiny_engine.generate(prompt, max_new_tokens=3)
    assert "\n" not in str(caught.value)


def test_what_was_asked_is_not_changed_afterwards() -> None:
    mine = [dict(message, name="x") for message in TURNS]
    checked = check_messages(mine)
    mine[0]["content"] = "changed"
    assert checked == TURNS


@pytest.fixture(scope="module")
def judges(tiny: Tiny) -> Tiny:
    """A reward model that reads a chat, and one without a chat template that holds two of three turns."""
    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    chat = AutoModelForSequenceClassification.from_pretrained(tiny.base, num_labels=1)
    torch.nn.init.normal_(chat.score.weight)
    chat.save_pretrained(tiny.folder / "judge-chat")
    tokenizer.save_pretrained(tiny.folder / "judge-chat")
    last_two = [message["content"] for message in TURNS[2:]] + [RESPONSE]
    room = len(tokenizer("\n\n".join(last_two)).input_ids)
    small = GPT2Config(
        vocab_size=len(tokenizer), n_positions=room, n_embd=16, n_layer=1, n_head=2, num_labels=1,
        initializer_range=0.5, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    GPT2ForSequenceClassification(small).save_pretrained(tiny.folder / "judge-small")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tiny.folder / "judge-small")
    return tiny


def scored(folder, ids: list[int]) -> float:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, 0].item()


def test_reward_models_see_the_whole_conversation(judges: Tiny) -> None:
    hh = "\n\nHuman: {prompt}\n\nAssistant: {response}"
    rewards = [
        {"objective": "chat", "kind": "classifier", "model": "judge-chat"},
        {"objective": "hh", "kind": "classifier", "model": "judge-chat", "template": hh},
        {"objective": "tight", "kind": "classifier", "model": "judge-chat", "template": "Q {prompt} A {response}"},
        {"objective": "small", "kind": "classifier", "model": "judge-small"},
        {"objective": "said", "kind": "function", "function": "tests.engine.test_messages:length_of_prompt"},
        {"objective": "plain", "kind": "implicit", "beta": 0.1},
    ]
    with Engine.from_config(judges.write("judges.yaml", rewards=rewards)) as engine:
        (found,) = engine.rewards([(TURNS, RESPONSE, None)])
        (alone,) = engine.rewards([(TURNS[-1]["content"], RESPONSE, None)])
        log_probs = engine.token_log_probs(TURNS, RESPONSE)
    tokenizer = AutoTokenizer.from_pretrained(judges.base)
    whole = [*TURNS, {"role": "assistant", "content": RESPONSE}]
    said = [message["content"] for message in whole]
    folder = judges.folder / "judge-chat"
    in_chat = tokenizer.apply_chat_template(whole, return_dict=False)
    assert found["chat"] == pytest.approx(scored(folder, in_chat), abs=1e-4)
    assert abs(found["chat"] - alone["chat"]) > 1e-3
    in_hh = "".join(f"\n\nHuman: {said[i]}\n\nAssistant: {said[i + 1]}" for i in (0, 2, 4))
    assert found["hh"] == pytest.approx(scored(folder, tokenizer(in_hh).input_ids), abs=1e-4)
    tight = "\n\n".join(f"Q {said[i]} A {said[i + 1]}" for i in (0, 2, 4))
    assert found["tight"] == pytest.approx(scored(folder, tokenizer(tight).input_ids), abs=1e-4)
    # What does not fit goes without its oldest turns.
    shorter = tokenizer("\n\n".join(said[2:])).input_ids
    assert found["small"] == pytest.approx(scored(judges.folder / "judge-small", shorter), abs=1e-4)
    assert found["said"] == len(TURNS[-1]["content"])
    by_hand = 0.1 * (sum(log_probs["plain"]) - sum(log_probs["reference"]))
    assert found["plain"] == pytest.approx(by_hand)


def length_of_prompt(prompt: str, response: str) -> float:
    return float(len(prompt))


def test_the_command_line_takes_messages(tiny: Tiny, tiny_engine: Engine, tmp_path) -> None:
    file = tmp_path / "turns.json"
    file.write_text(json.dumps(TURNS), encoding="utf-8")
    arguments = ["--config", str(tiny.config), "--messages", str(file), "--json"]
    made = json.loads(run("generate", *arguments, "--max-new-tokens", "9", "--temperature", "0").stdout)
    assert made["prompt"] == TURNS
    assert made["tokens"] == tiny_engine.generate(TURNS, max_new_tokens=9, temperature=0.0).tokens
    found = json.loads(run("score", *arguments, "--response", RESPONSE).stdout)
    for name, values in tiny_engine.token_log_probs(TURNS, RESPONSE).items():
        assert found["token_log_probs"][name] == pytest.approx(values, abs=1e-4)
    assert found["rewards"] == pytest.approx(tiny_engine.rewards([(TURNS, RESPONSE, None)])[0], abs=1e-4)
    from_stdin = run("score", "--config", str(tiny.config), "--messages", "-", "--response", RESPONSE, "--json",
                     stdin=json.dumps(TURNS))  # fmt: skip
    assert json.loads(from_stdin.stdout) == found


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        ("[", "stdin: not JSON"),
        ("[" * 100_000, "stdin: not JSON"),
        ('{"prompt": "mix"}', "stdin: expected a list of messages"),
        ("[]", "it has no messages"),
        (json.dumps(TURNS[:2]), "its last message is the assistant's"),
        (json.dumps([{"role": "system", "content": "be brief"}]), "the role is 'system', expected 'user'"),
    ],
)
def test_mistakes_in_messages_are_one_line_and_exit_2(tiny: Tiny, stdin: str, said: str) -> None:
    found = run("generate", "--config", str(tiny.config), "--messages", "-", stdin=stdin)
    assert (found.returncode, found.stdout) == (2, "")
    (line,) = found.stderr.strip().splitlines()
    assert said in line

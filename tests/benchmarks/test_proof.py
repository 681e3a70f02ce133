"""The checkers side by side: each refutes what it can see, passes what is right, and is counted as it should be."""

import importlib.util
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax.certify.certificate import Verdict
from benchmarks.__main__ import find_rows
from benchmarks.harness import Options
from benchmarks.proof import __main__ as command
from benchmarks.proof import checkers as judges
from benchmarks.proof import peers
from benchmarks.proof.checkers import Checker, Found, Outcome
from benchmarks.proof.tables import WIDTH, Count, Trial, dtype_lines, failures, record, refuted, summary, verbose_line
from tests.certify.planting import normal, planted
from tests.certify.rules import Mutant, Right

MATRIX = normal((3, 5))
HALVED = Mutant("sine: halved", planted(jnp.sin, lambda r, dy: (jnp.cos(r[0]) * dy / 2,)), MATRIX,
                law="adjoint", diagnosis="0.5 times")  # fmt: skip
CLIPPED = Mutant("sine: clipped", planted(jnp.sin, lambda r, dy: (jnp.cos(r[0]) * jnp.clip(dy, -9, 9),)), MATRIX,
                 law="linear", diagnosis="clipped")  # fmt: skip
SINE = Right("sine: right", planted(jnp.sin, lambda r, dy: (jnp.cos(r[0]) * dy,)), MATRIX)
TURN = Right("complex: turned", planted(lambda z: 1j * z, lambda r, dy: (1j * dy,)),
             lambda rng: (rng.standard_normal(3) + 1j * rng.standard_normal(3),), ("float32", "float64"))  # fmt: skip
REVERSED = Right("waived: reversed", planted(lambda x: x * 1.0, lambda r, dy: (-dy,)), MATRIX,
                 options={"waive": ("adjoint",)})  # fmt: skip
PEERS = [c for c in judges.checkers(keys=1, wrong_keys=1, contexts=False)[1:] if not c.missing]


@pytest.mark.parametrize("checker", PEERS, ids=lambda c: c.name)
def test_every_peer_tells_a_halved_cotangent_from_a_right_one(checker):
    for rule, found in ((HALVED, Found.REFUTED), (SINE, Found.PASSED), (CLIPPED, Found.PASSED)):
        assert checker(rule, "float64").found is found


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_dot_test_scales_with_the_dtype(dtype):
    peers.dot(SINE, dtype)
    with pytest.raises(AssertionError, match=r"<J v, u> = .*, <v, bwd\(u\)> = "):
        peers.dot(HALVED, dtype)


def test_the_dot_test_pairs_complex_numbers_as_jax_transposes():
    peers.dot(TURN, "float64")
    with pytest.raises(AssertionError):
        peers.dot(Right("", planted(lambda z: 1j * z, lambda r, dy: (-1j * dy,)), TURN.arguments), "float64")


def test_the_dot_test_knows_the_reference():
    stopped = Right("", lambda: jax.lax.stop_gradient, MATRIX, options={"reference": lambda x: 2 * x})
    with pytest.raises(AssertionError):
        peers.dot(stopped, "float64")


def test_rules_are_seen_from_floating_leaves_to_floating_results():
    def f(tree, ids, mode):
        assert mode == "up"
        return {"y": tree["x"][ids], "ids": ids}

    form, values = peers.floating(f, ({"x": jnp.arange(3.0)}, jnp.array([2, 0]), "up"))
    assert [v.shape for v in values] == [(3,)]
    result, = form(np.array([5.0, 6.0, 7.0]))
    np.testing.assert_array_equal(result, [7.0, 5.0])
    pull = jax.vjp(form, *values)[1]
    assert isinstance(pull((np.ones(2),))[0], jax.Array)


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is not installed")
@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (TURN, "real numbers only"),
        (Mutant("", HALVED.function, MATRIX, ("bfloat16",)), "float64 only"),
        (Mutant("", HALVED.function, MATRIX, devices=2), "one device only"),
    ],
)
def test_what_torch_is_not_asked(rule, why):
    with pytest.raises(peers.NotPorted, match=why):
        peers.torch_gradcheck(rule, "float64")


def test_what_a_checker_raises_decides():
    def raising(error):
        def check(rule, dtype):
            raise error

        return Checker("c", "c", lambda rule, dtype: judges.asserted(check, rule, dtype))(SINE, "float32")

    assert raising(AssertionError("\nfar off\nmore")).note == "AssertionError: far off"
    assert raising(AssertionError()).found is Found.REFUTED
    assert raising(peers.NotPorted("why")).found is Found.ABSENT
    assert raising(TypeError("broken")).found is Found.ERROR
    missing = Checker("c", "c", lambda rule, dtype: 1 / 0, missing="torch is not installed")
    assert missing(SINE, "float32") == Outcome(Found.ABSENT, "torch is not installed")


def stub(monkeypatch, *verdicts, law="adjoint", diagnosis="dx is 0.5 times the adjoint"):
    """`certify_each` that gives these verdicts, one a key; what it was asked."""
    seen = {}

    def each(f, *args, keys, **options):
        seen.update(options)
        for key, verdict in zip(keys, verdicts, strict=True):
            finding = SimpleNamespace(law=law, context="", message="far off", diagnosis=diagnosis)
            found = (finding,) if verdict is Verdict.REFUTED else ()
            yield SimpleNamespace(verdict=verdict, ok=verdict is Verdict.PROVEN, failures=found, seed=key)

    monkeypatch.setattr(judges, "certify_each", each)
    return seen


def test_a_mutant_is_killed_by_every_key_or_missed(monkeypatch):
    bad, good = Verdict.REFUTED, Verdict.PROVEN
    stub(monkeypatch, bad, bad)
    caught = judges.certified(HALVED, "float32", keys=1, wrong_keys=2, contexts=False)
    assert caught == Outcome(Found.REFUTED, "", 0, True, True)
    stub(monkeypatch, bad, good)
    missed = judges.certified(HALVED, "float32", keys=1, wrong_keys=2, contexts=False)
    assert (missed.found, missed.note, missed.law) == (Found.PASSED, "proven with key 1", False)
    stub(monkeypatch, Verdict.VACUOUS)
    assert judges.certified(HALVED, "float32", keys=1, wrong_keys=1, contexts=False).found is Found.PASSED
    stub(monkeypatch, bad, law="pure", diagnosis="")
    other = judges.certified(HALVED, "float32", keys=1, wrong_keys=1, contexts=False)
    assert (other.found, other.law, other.diagnosis) == (Found.REFUTED, False, False)


def test_a_right_rule_is_refuted_by_one_key(monkeypatch):
    stub(monkeypatch, Verdict.PROVEN, Verdict.REFUTED)
    alarm = judges.certified(SINE, "float32", keys=2, wrong_keys=1, contexts=False)
    assert alarm == Outcome(Found.REFUTED, "refuted with key 1, adjoint: far off")


@pytest.mark.parametrize(
    ("rule", "contexts", "expected"),
    [
        (SINE, False, ()),
        (SINE, True, None),
        (HALVED, True, ()),
        (Mutant("", HALVED.function, MATRIX, law="adjoint", context="vmap x"), False, None),
    ],
)
def test_which_contexts_are_asked_for(monkeypatch, rule, contexts, expected):
    seen = stub(monkeypatch, Verdict.REFUTED if isinstance(rule, Mutant) else Verdict.PROVEN)
    judges.certified(rule, "float32", keys=1, wrong_keys=1, contexts=contexts)
    assert seen["contexts"] == expected


def test_adjax_itself_kills_names_and_passes():
    ours = judges.checkers(keys=1, wrong_keys=1, contexts=False)[0]
    killed = ours(HALVED, "float32")
    assert (killed.found, killed.law, killed.diagnosis) == (Found.REFUTED, True, True)
    assert killed.seconds > 0
    assert ours(REVERSED, "float32").found is Found.PASSED


ASKED = [Checker("adjax", "adjax", lambda *_: None), Checker("peer", "peer", lambda *_: None),
         Checker("lost", "lost", lambda *_: None, "lost is not installed")]  # fmt: skip
LOST = Outcome(Found.ABSENT, "lost is not installed")


def trial(rule, ours, theirs):
    return Trial(rule, {"adjax": ours, "peer": theirs, "lost": LOST})


TRIALS = [
    trial(HALVED, Outcome(Found.REFUTED, "", 2.0, True, False), Outcome(Found.REFUTED)),
    trial(CLIPPED, Outcome(Found.PASSED, "proven with key 0", 3.0, False, False), Outcome(Found.PASSED)),
    trial(SINE, Outcome(Found.PASSED), Outcome(Found.REFUTED)),
    trial(TURN, Outcome(Found.PASSED), Outcome(Found.ERROR, "TypeError: complex")),
    trial(REVERSED, Outcome(Found.PASSED), Outcome(Found.REFUTED)),
]


def test_counts():
    ours, peer = (summary(TRIALS, name) for name in ("adjax", "peer"))
    assert {name: str(value) for name, value in ours.items()} == {
        "kills": "1/2", "laws": "1/2", "causes": "0/2", "alarms": "0/2", "waived": "0/1", "errors": "0",
        "seconds": "5.0",
    }  # fmt: skip
    assert [str(peer[name]) for name in ("kills", "laws", "alarms", "waived", "errors")] == [
        "1/2", "–", "1/2", "1/1", "1",
    ]  # fmt: skip
    assert refuted(TRIALS, "lost").of == 0
    assert [t.rule.name for t in failures(TRIALS, "adjax")] == ["sine: clipped"]


@pytest.mark.parametrize(
    ("count", "shown"), [(Count(3, 4), "3"), (Count(2, 3), "2/3"), (Count(2, 4, 1), "2 1e"), (Count(0, 0), "–")]
)
def test_a_cell_says_no_more_than_it_must(count, shown):
    assert count.among(4) == shown


def test_the_report_fits_into_eighty_columns_and_says_what_went_wrong():
    long = Right("a family with a very long name indeed: ok", SINE.function, MATRIX)
    trials = [*TRIALS, trial(long, Outcome(Found.ERROR, "BadInput: " + "no " * 60), Outcome(Found.REFUTED))]
    lines = "\n".join(dtype_lines("float32", trials, ASKED)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    for text in (
        "float32: 2 wrong rules, 3 right ones, 1 deliberate departures", "lost: lost is not installed", "adjax missed:",
        "  sine: clipped: proven with key 0", "false alarms of adjax:", "cause not named by adjax:", "  sine: halved",
    ):  # fmt: skip
        assert text in lines
    assert "law not named by adjax:" not in lines


def test_a_line_for_each_rule():
    assert verbose_line(TRIALS[0], ASKED) == "wrong      sine: halved: caught by all"
    assert verbose_line(TRIALS[1], ASKED) == "wrong      sine: clipped: missed by adjax, peer"
    assert verbose_line(TRIALS[2], ASKED) == "right      sine: right: refuted by peer"
    assert verbose_line(TRIALS[3], ASKED) == "right      complex: turned: error in peer"


def test_the_record_is_json():
    made = json.loads(json.dumps(record("float32", TRIALS, ASKED)))
    assert made["checkers"]["adjax"]["kills"] == {"hits": 1, "of": 2, "errors": 0}
    assert [rule["kind"] for rule in made["rules"]] == ["wrong", "wrong", "right", "right", "departure"]
    assert made["rules"][1]["outcomes"]["adjax"]["found"] == "passed"


@pytest.fixture
def toy(monkeypatch):
    """Four rules and two checkers: adjax says what the list says."""
    verdicts = {r.name: found for r, found in ((HALVED, Found.REFUTED), (SINE, Found.PASSED), (TURN, Found.PASSED))}
    ours = Checker("adjax", "adjax", lambda rule, dtype: Outcome(verdicts[rule.name]))
    peer = Checker("peer", "peer", lambda rule, dtype: Outcome(Found.PASSED))
    monkeypatch.setattr(command, "planted", lambda: [HALVED, SINE, TURN])
    monkeypatch.setattr(command, "checkers", lambda keys, wrong_keys, contexts: [ours, peer])
    return verdicts


def test_the_command_prints_and_writes_each_dtype(toy, tmp_path, capsys):
    file = tmp_path / "proof.json"
    assert command.main(["--dtype", "float64", "--dtype", "bfloat16", "--json", str(file), "--verbose"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= WIDTH
    assert "float64: 1 wrong rules, 2 right ones" in out and "bfloat16: 1 wrong rules, 1 right ones" in out
    assert "wrong      sine: halved: missed by peer" in out
    assert "contexts=[]" in out
    written = json.loads(file.read_text(encoding="utf-8"))
    assert [table["dtype"] for table in written["dtypes"]] == ["float64", "bfloat16"]
    assert written["options"]["keys"] == 1


def test_adjax_may_be_asked_alone(toy, capsys):
    assert command.main(["--checker", "adjax", "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "wrong      sine: halved: caught by all" in out and "peer" not in out


@pytest.mark.parametrize(
    ("name", "found"), [("sine: halved", Found.PASSED), ("sine: right", Found.REFUTED), ("sine: right", Found.ERROR)]
)
def test_the_command_fails_with_adjax(toy, name, found, capsys):
    toy[name] = found
    assert command.main([]) == 1
    assert command.main(["--only", "TURNED"]) == 0
    assert command.main(["--family", "complex"]) == 0


def test_rules_are_chosen_by_name(toy, capsys):
    assert command.main(["--list", "--only", "Halved"]) == 0
    assert capsys.readouterr().out == "sine: halved\n"
    assert command.main(["--only", "nothing"]) == 2
    assert command.main(["--family", "complex", "--dtype", "bfloat16"]) == 2
    assert "no rule has such a name and dtype" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        command.main(["--keys", "0"])
    assert stop.value.code == 2


def test_it_is_no_module_of_timings():
    assert not any(name.startswith("proof") for name in find_rows(Options()))


def test_a_checker_with_a_dtype_of_its_own_is_asked_once():
    asked = []
    remembered = judges._remembered(lambda rule, dtype: asked.append(dtype) or Outcome(Found.PASSED))
    assert remembered(HALVED, "float32") == remembered(HALVED, "float64") == Outcome(Found.PASSED)
    assert asked == ["float32"]

"""The cost model against what it models: equations, residuals and compiled programs of the decoder itself."""

from collections import Counter
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

import adjax
from adjax import DECODERS, HARDWARE, Decoder, Degrees, Hardware, predict, saved_residuals
from adjax.__main__ import main
from adjax.examples.text.decoder import SPELLED, init, run_block
from adjax.examples.text.options import Options
from adjax.examples.text.train import make_optimizer
from adjax.explain.cost import count
from adjax.explain.cost_layers import Pass
from adjax.explain.hardware import Collective
from adjax.explain.saved import Differentiated
from tests.examples.collectives import collectives
from tests.explain.laid_out import compiled, loss, norm, params_like

pytestmark = pytest.mark.shared

SMALL = Decoder(64, 2, 4, 168, 96, context=32, batch=3, dtype="float32", bands=1)
ONE = Degrees()
CHIP = Hardware("chip", 1e12, 5e11, 1e11, 1e9, 1e10, 4, 1e9)


@pytest.fixture(autouse=True)
def as_programs_run():
    """float64 is off, and promotion is not strict, which optax's Adam does not survive."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def of(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def named(decoder, degrees=ONE):
    return {layer.name: layer for layer in predict(decoder, degrees, CHIP).layers}


# FLOP of one layer: as the equations have them

def counted(f, *args):
    """FLOP of the forward pass that keeps residuals, and of the backward pass."""
    program = Differentiated("counted", f, args)
    y, back = jax.eval_shape(program.vjp, *program.types)
    return count(lambda *args: program.vjp(*args)[0], *program.types), count(lambda back, dy: back(dy), back, y)


def subjects(decoder):
    b, t, d, f, h = decoder.batch, decoder.context, decoder.width, decoder.between, decoder.heads
    affine = lambda d, p: (adjax.affine, adjax.AffineParams(of(d, p), None), of(b, t, d))
    heads = of(b, t, h, d // h)

    def rotary(q, k):
        return adjax.rotary(q, jnp.arange(t)), adjax.rotary(k, jnp.arange(t))

    def attention(q, k, v):
        return adjax.attention(q, k, v, causal=True)

    return {
        "rms_norm": (norm, of(d), of(b, t, d)),
        "qkv": affine(d, 3 * d),
        "rotary": (rotary, heads, heads),
        "attention": (attention, heads, heads, heads),
        "mixed": affine(d, d),
        "gate_up": affine(d, 2 * f),
        "swiglu": (adjax.swiglu, of(b, t, f), of(b, t, f)),
        "down": affine(f, d),
    }


BANDS = {"one band": SMALL, "four bands": replace(SMALL, context=256, batch=32, bands=4)}


@pytest.mark.parametrize("decoder", BANDS.values(), ids=BANDS)
@pytest.mark.parametrize("name", subjects(SMALL))
def test_flops_of_a_layer_are_those_of_its_equations(name, decoder):
    layer = named(decoder)[name]
    assert (layer.forward.flops, layer.backward.flops) == counted(*subjects(decoder)[name])


def test_flops_of_the_loss_are_those_of_its_equations():
    """They have the logits twice, once for the loss and once for its gradient; XLA merges the two."""
    layer, (b, t, d, v) = named(SMALL)["linear_cross_entropy"], (3, 32, 64, 96)
    forward, backward = counted(
        adjax.linear_cross_entropy, adjax.AffineParams(of(d, v), None), of(b, t, d), of(b, t, dtype=jnp.int32)
    )
    assert forward - 2 * b * t * d * v == layer.forward.flops + 1
    assert backward == layer.backward.flops


@pytest.mark.parametrize("remat", [False, True])
def test_flops_of_a_step_are_those_of_its_equations(remat):
    """All but adding up a few cotangents. With remat XLA is no judge: it merges some of what runs again."""
    decoder = replace(SMALL, depth=3, remat=remat)
    ids, logits = of(3, 33, dtype=jnp.int32), 2 * 3 * 32 * 64 * 96
    counted = count(jax.value_and_grad(lambda params, ids: loss(decoder, params, ids)), params_like(decoder), ids)
    *network, _ = predict(decoder, ONE, CHIP).layers
    flops = sum(layer.times * (layer.forward.flops + layer.backward.flops) for layer in network)
    assert counted - logits == pytest.approx(flops, rel=1e-3)


def test_flops_of_the_update():
    params, optimizer = params_like(SMALL), make_optimizer(Options())

    def update(gradient, state, params):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    flops = count(update, params, jax.eval_shape(optimizer.init, params), params)
    assert flops == pytest.approx(named(SMALL)["adamw"].forward.flops, rel=1e-3)


# Bytes: parameters, optimizer state, residuals

@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_kept_is_what_the_backward_pass_holds(dtype):
    decoder = replace(SMALL, dtype=dtype)
    params, x, ids = params_like(decoder, dtype), of(3, 32, 64, dtype=dtype), of(3, 32, dtype=jnp.int32)
    e = decoder.width // decoder.heads
    saved = saved_residuals(lambda p, x: run_block(p, x, SPELLED, e), params["blocks"][0], x)
    held = sum(s.bytes for s in saved if not s.origin.startswith("args[0]"))          # args[0]: the parameters
    layers = named(decoder)
    assert held == sum(layer.times * layer.kept for layer in layers.values() if layer.in_block) / decoder.depth
    for name, f, args in (
        ("embed", adjax.embed, (params["table"], ids)),
        ("last rms_norm", norm, (params["norm"], x)),
        ("linear_cross_entropy", adjax.linear_cross_entropy, ((params["words"], None), x, ids)),
    ):
        kept = sum(s.bytes for s in saved_residuals(f, *args) if s.shape != (64,))     # the scale of the norm
        assert kept == layers[name].kept


def test_parameters_and_optimizer_state_are_those_of_the_program():
    params, key = params_like(SMALL), jax.random.key(0)
    state = jax.eval_shape(make_optimizer(Options()).init, params)
    of_example = jax.eval_shape(lambda: init(key, Options(width=64, depth=2, heads=4), 96))
    held = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if x.shape)
    memory = predict(SMALL, ONE, CHIP).memory
    assert SMALL.parameters == sum(x.size for x in jax.tree.leaves(of_example))
    assert (memory.parameters, memory.optimizer) == (held(params), held(state))
    assert (memory.copy, memory.gathered) == (0, 0)
    norms = 4 * 64 * 5                                                                 # bytes, whole on every part
    split = predict(replace(SMALL, batch=4, dtype="bfloat16"), Degrees(fsdp=4, tensor=2), CHIP).memory
    assert 4 * split.parameters == norms + (memory.parameters - norms) / 2
    assert split.optimizer == 2 * split.gradients == 2 * split.parameters == 4 * split.copy
    assert split.gathered == 2 * 2 * 64 * 168                                          # gate_up, twice, bfloat16


def test_remat_keeps_the_input_of_every_block_and_all_of_one():
    kept, again = (predict(replace(SMALL, depth=5, remat=remat), ONE, CHIP) for remat in (False, True))
    block = sum(layer.times * layer.kept for layer in kept.layers if layer.in_block) / 5
    inputs = 5 * 4 * SMALL.batch * SMALL.context * SMALL.width
    assert kept.memory.activations - again.memory.activations == 4 * block - inputs
    assert again.flops > 1.2 * kept.flops
    assert again.utilization[0] == pytest.approx(kept.flops / again.seconds[0] / CHIP.flops)


# Compiled programs

LARGER = replace(SMALL, width=128, heads=8, between=344, vocabulary=512, context=64, batch=8, depth=1)
PROGRAMS = {
    "one device": (replace(LARGER, batch=1), ONE),
    "data": (LARGER, Degrees(data=8)),
    "tensor": (LARGER, Degrees(tensor=2)),
    "both": (replace(LARGER, depth=2), Degrees(data=2, tensor=4)),
}


def bytes_of(passes, kind):
    return sum(times * one.bytes for times, of in passes for one in of.collectives if one.kind == kind)


@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_programs(name):
    """XLA counts some elementwise operations otherwise and merges others, and for CPU copies operands of products."""
    decoder, degrees = PROGRAMS[name]
    program = compiled(decoder, degrees.data, degrees.tensor)
    prediction = predict(decoder, degrees, CHIP)
    flops = prediction.flops - prediction.layers[-1].forward.flops                     # without the update
    assert program.cost_analysis()["flops"] == pytest.approx(flops, rel=0.02)
    assert collectives(program).bytes == Counter({"all-reduce": bytes_of(prediction.passes, "all-reduce")})
    held, memory = program.memory_analysis(), prediction.memory
    ids = 4 * decoder.batch // degrees.data * (decoder.context + 1)
    assert held.argument_size_in_bytes == memory.parameters + ids
    assert 0.5 < (memory.activations + memory.working) / held.temp_size_in_bytes < 2


def test_fsdp_gathers_every_matrix():
    """XLA merges the gathers of the two passes of an unrolled program, and for CPU has no reduce-scatter."""
    decoder = replace(LARGER, depth=2)
    norms = 4 * 128 * 5                                                                # bytes, not split here
    forward = [(layer.times, layer.forward) for layer in predict(decoder, Degrees(fsdp=4), CHIP).layers]
    gathered = bytes_of(forward, "all-gather") - norms
    said = collectives(compiled(decoder, 1, 1, 4)).bytes
    assert said == {"all-gather": gathered, "all-reduce": 4 * decoder.parameters + 4}


def ring(n):
    """Attention of a sequence over n devices."""
    mesh = jax.make_mesh((n,), ("sequence",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:n])
    spec = P(None, "sequence")
    f = partial(adjax.ring_attention, axis_name="sequence", causal=True)
    return jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec)


def test_keys_and_values_go_round_a_ring():
    n, heads = 4, of(3, 32, 4, 16)
    back = jax.eval_shape(lambda *args: jax.vjp(ring(n), *args)[1], *[heads] * 3)
    layer = named(SMALL, Degrees(sequence=n))["attention"]
    programs = (ring(n), heads, heads, heads), (lambda back, dO: back(dO), back, heads)
    for (f, *args), of_pass in zip(programs, (layer.forward, layer.backward), strict=True):
        said = collectives(jax.jit(f).lower(*args).compile(), turns=True).bytes
        assert said == {"collective-permute": bytes_of([(1, of_pass)], "collective-permute")}
    again = named(replace(SMALL, remat=True), Degrees(sequence=n))["attention"].backward
    assert again.collectives == layer.forward.collectives + layer.backward.collectives


def test_flops_of_a_ring_are_those_of_its_equations():
    """Of its last device, which sees all keys; sums over the devices' parts are counted roughly."""
    heads = of(2, 256, 4, 128)
    layer = named(replace(SMALL, width=512, context=256, batch=2), Degrees(sequence=4))["attention"]
    assert (layer.forward.flops, layer.backward.flops) == pytest.approx(counted(ring(4), heads, heads, heads), rel=0.01)


def test_weak_scaling():
    """Twice as many devices with twice as many examples: the same FLOP on each, counted and predicted."""
    scaled = [(n, replace(LARGER, batch=n)) for n in (1, 2, 8)]
    measured = [compiled(decoder, n, 1).cost_analysis()["flops"] for n, decoder in scaled]
    predicted = [predict(decoder, Degrees(data=n), CHIP).flops for n, decoder in scaled]
    assert max(measured) <= 1.02 * min(measured)
    assert len(set(predicted)) == 1


# Time

def test_time_is_that_of_what_limits():
    """By hand: rates are 1e12 and 5e11 FLOP/s, 1e11 bytes/s of memory, 1e10 in a domain of four, 1e9 beyond."""
    prediction = predict(SMALL, Degrees(data=3), CHIP)
    by_hand = lambda flops, bytes, wide, *sent: prediction.times(Pass(flops, bytes, sent, wide))
    assert by_hand(2e12, 1e11, False) == (2.0, 1.0, 0.0)
    assert by_hand(2e12, 1e11, True) == (4.0, 1.0, 0.0)
    reduced = Collective("all-reduce", ("data",), 6e10)
    busy = by_hand(2e12, 3e11, False, reduced)
    assert busy == (2.0, 3.0, 8.0)                                                     # 2 · 6e10 · 2/3 bytes
    assert (busy.hidden, busy.apart, busy.bound) == (8.0, 11.0, "link")
    assert (by_hand(0, 0, False).bound, by_hand(1, 1, False).bound) == ("", "memory")
    hidden, apart = prediction.seconds
    every = [(n, prediction.times(one)) for n, one in prediction.passes]
    assert hidden == sum(n * max(t) for n, t in every) < apart == sum(n * t.apart for n, t in every)


@pytest.mark.parametrize(("degrees", "axes", "rate"), [
    (Degrees(data=4), ("data",), 1e10),                       # one domain
    (Degrees(data=2, tensor=4), ("tensor",), 1e10),           # innermost
    (Degrees(data=2, tensor=4), ("data",), 1e9),              # of a group's chips each is in a domain of its own
    (Degrees(data=4, tensor=2), ("data",), 2e9),              # two of them share one, and its ways out
    (Degrees(fsdp=16), ("fsdp",), 4e9),
    (Degrees(data=2, sequence=4, tensor=2), ("data", "sequence"), 2e9),
])  # fmt: skip
def test_collectives_beyond_a_domain_share_its_ways_out(degrees, axes, rate):
    gather = Collective("all-gather", axes, 1e9)
    ways = degrees.of(axes)
    assert gather.seconds(degrees, CHIP) == pytest.approx(1e9 * (ways - 1) / ways / rate)


def test_kernels_save_the_bytes_of_scores_and_logits():
    spread, fused = (predict(replace(SMALL, fused=fused), ONE, CHIP) for fused in (False, True))
    saved = {a.name: a.forward.bytes - b.forward.bytes + a.backward.bytes - b.backward.bytes
             for a, b in zip(spread.layers, fused.layers, strict=True) if a != b}  # fmt: skip
    scores, logits = 3 * 4 * 32 * 32, 3 * 32 * 96
    assert saved == {"attention": 17 * 4 * scores, "linear_cross_entropy": 7 * 4 * logits}
    assert spread.flops == fused.flops


def test_seven_billion_parameters():
    """6 FLOP a parameter and token, and attention; what is split adds up to the same on 256 chips and on 4096."""
    few, many = (predict(DECODERS["7b"], Degrees(fsdp=256, tensor=n), HARDWARE["v5p"]) for n in (1, 16))
    tokens = 2048 * 2048
    assert DECODERS["7b"].parameters == 6_738_415_616                                  # as published
    assert few.flops * 256 == pytest.approx(6 * tokens * DECODERS["7b"].parameters, rel=0.1)
    assert many.flops * 4096 == pytest.approx(few.flops * 256, rel=0.01)
    assert many.memory.parameters == pytest.approx(few.memory.parameters / 16, rel=0.01)


# Text and the command line

@pytest.mark.parametrize("arguments", ["", "--hardware v5p --chips 4096 --data 8 --tensor 8 --remat", "--width 8192"])
def test_the_table_has_80_columns_and_a_line_for_each_pass(arguments, capsys):
    assert main(["cost", *arguments.split()]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert (err, max(map(len, lines)) <= 80) == ("", True)
    assert len([line for line in lines if " × " in line]) == 2 * 13 + 1
    assert lines[-2].startswith("step    ")


def test_every_number_can_be_given(capsys):
    rates = {"flops": 1e12, "wide-flops": 5e11, "bandwidth": 1e11, "memory": 1e9, "link": 1e10, "domain": 4,
             "network": 1e9}  # fmt: skip
    model = {"width": 64, "depth": 2, "heads": 4, "between": 168, "vocabulary": 96, "context": 32, "batch": 4,
             "bands": 1, "loss-block": 2**20}  # fmt: skip
    given = [f"--{name}={value}" for name, value in (rates | model).items()]
    assert main(["cost", "--chips=8", "--tensor=2", "--dtype=float32", *given]) == 0
    decoder = replace(SMALL, batch=4, loss_block=2**20)
    expected = str(predict(decoder, Degrees(fsdp=4, tensor=2), replace(CHIP, name="h100")))
    assert capsys.readouterr().out == expected + "\n"


@pytest.mark.parametrize(("arguments", "message"), [
    ("--params 8b", "argument --params: invalid choice: '8b' (choose from "),
    ("--hardware h101", "argument --hardware: invalid choice: 'h101' (choose from "),
    ("--chips 0", "argument --chips: must be an integer of at least 1 and at most 1000000, got 0"),
    ("--link -1", "argument --link: must be a positive number, got '-1'"),
    ("--chips 6 --tensor 4", "--chips: data 1, fsdp 1, tensor 4, sequence 1 make 4 chips, not 6"),
    ("--chips 8 --fsdp 4 --data 4", "--chips: data 4, fsdp 4, tensor 1, sequence 1 make 16 chips, not 8"),
    ("--chips 4096", "2048 examples do not divide into data × fsdp = 4096 equal parts"),
    ("--chips 12 --tensor 3 --fsdp 1", "--chips: data 1, fsdp 1, tensor 3, sequence 1 make 3 chips, not 12"),
    ("--chips 3 --tensor 3", "32 heads do not divide into tensor = 3 equal parts"),
    ("--chips 64 --tensor 64", "32 heads do not divide into tensor = 64 equal parts"),
    ("--chips 32 --tensor 32 --vocabulary 100", "100 words of the vocabulary do not divide into tensor = 32 equal"),
    ("--chips 3 --sequence 3", "2048 tokens do not divide into sequence = 3 equal parts"),
    ("--width 100", "a width of 100 has no 32 heads of equal, even width"),
])  # fmt: skip
def test_bad_input_is_one_line(arguments, message, capsys):
    try:
        status = main(["cost", *arguments.split()])
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"adjax cost: {message}")


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"Hardware: bandwidth must be a positive number, got 0"):
        replace(CHIP, bandwidth=0)
    with pytest.raises(ValueError, match=r"Degrees: tensor must be an integer of at least 1, got 0"):
        Degrees(tensor=0)
    with pytest.raises(ValueError, match=r"predict: dtype must be one of float32, bfloat16, float16, got 'int8'"):
        predict(replace(SMALL, dtype="int8"), ONE, CHIP)
    with pytest.raises(ValueError, match=r"predict: depth must be at least 1, got 0"):
        predict(replace(SMALL, depth=0), ONE, CHIP)
    with pytest.raises(TypeError, match=r"predict: degrees must be of type Degrees, got int"):
        predict(SMALL, 8, CHIP)

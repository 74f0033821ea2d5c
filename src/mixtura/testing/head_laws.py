"""What must hold of every head.

Inherit from :class:`HeadLaws` in a test file, say how the head is built, and pytest finds the laws::

    class TestMyHead(HeadLaws):
        head_type = MyHead
        options = {"components": 2}

Without pytest, ``TestMyHead().run()`` goes through them all.
"""

import copy
import json
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.testing import assert_close

from mixtura.core import temperature
from mixtura.errors import DataError, MixturaError, NoDensity, NonFinite, UsageError
from mixtura.heads.base import Head
from mixtura.heads.init import Labels, Rows
from mixtura.interfaces import Head as AnyHead
from mixtura.testing.score_laws import clusters, unchecked_shapes

N_CLASSES = 3
DIMENSION = 4


def labeled(seed: int = 0, n: int = 120) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
    """Overlapping classes of two clusters each, float32."""
    x, part = clusters(n, 2 * N_CLASSES, DIMENSION, seed)
    return x.float(), part % N_CLASSES


def separable(n: int = 96) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
    """Classes along axes of their own, float32, which no head should find hard to learn."""
    labels = torch.arange(n) % N_CLASSES
    noise = torch.randn(n, DIMENSION, generator=torch.Generator().manual_seed(5))
    return 2 * torch.eye(DIMENSION)[labels] + 0.3 * noise, labels


def loss(head: Callable[[Tensor], Tensor], x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Cross-entropy in nats."""
    return nn.functional.nll_loss(head(x), labels)


def gradients(head: Head, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], parts: int = 1) -> dict[str, Tensor]:
    """Gradients of the loss of the rows, gathered over parts of equal size; zero where a parameter has none."""
    head.zero_grad()
    if any(parameter.requires_grad for parameter in head.parameters()):
        for rows, own in zip(x.chunk(parts), labels.chunk(parts), strict=True):
            (loss(head, rows, own) / parts).backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in head.named_parameters()
    }


class HeadLaws:
    """The laws; a head from outside sets ``head_type`` and, where they apply, ``options`` of its ``from_rows``.

    ``density`` says whether the head gives log p(x, c), ``knows`` whether its start has seen the labels. :meth:`build`
    is to be replaced by a head that has no start from rows.
    """

    head_type: ClassVar[type[Head]]
    options: ClassVar[dict[str, Any]] = {}
    density: ClassVar[bool] = False
    knows: ClassVar[bool] = True

    def build(self, x: Any, labels: Any, seed: int = 0, **options: Any) -> Head:
        """The head at its start, in ``eval()``; rows and labels are tensors or arrays."""
        return self.head_type.from_rows(x, labels, N_CLASSES, seed=seed, **self.options | options).eval()

    def fresh(self) -> Head:
        """A head of the same configuration without a start, as its constructor makes it."""
        head = self.build(*labeled())
        torch.manual_seed(1)
        return type(head)(**json.loads(json.dumps(head.config()))).train()

    def run(self) -> list[str]:
        """Go through every law; the names of those that held. The first that does not raises."""
        names = [name for name in dir(self) if name.startswith("test_")]
        for name in names:
            getattr(self, name)()
        return names

    def test_is_a_head(self) -> None:
        """It has what objectives ask of a head; with a density, what they ask of one that has it."""
        head = self.build(*labeled())
        assert isinstance(head, AnyHead)
        further = ("groups", "density_dimension", "distances")  # of a GenerativeHead
        assert not self.density or all(hasattr(head, name) for name in further)

    def test_posterior_is_a_distribution_and_forward_its_log(self) -> None:
        """Rows of the posterior sum to one; it ranks classes as the scores do."""
        x, labels = labeled()
        head = self.build(x, labels)
        posterior = head.posterior(x)
        assert posterior.shape == (len(x), N_CLASSES)
        assert_close(posterior.sum(1), torch.ones(len(x)), rtol=0, atol=1e-5)
        assert_close(head(x).exp(), posterior, rtol=0, atol=1e-6)
        assert torch.equal(head.class_scores(x).argmax(1), posterior.argmax(1))

    def test_start_beats_chance(self) -> None:
        """A start from rows knows more than half of them."""
        x, labels = labeled()
        found = self.build(x, labels)(x).argmax(1)
        assert not self.knows or float((found == labels).float().mean()) > 0.5

    def test_config_and_state_are_the_head(self) -> None:
        """A head built from its configuration, through JSON, and its state, gives the same bits."""
        x, labels = labeled()
        head = self.build(x, labels)
        again = type(head)(**json.loads(json.dumps(head.config())))
        again.load_state_dict(head.state_dict(), strict=True)
        assert torch.equal(again.eval()(x), head(x))
        assert again.n_parameters == head.n_parameters > 0
        assert again.sparsity == head.sparsity
        assert (again.dimension, again.n_classes) == (DIMENSION, N_CLASSES)

    def test_copies_are_copies(self) -> None:
        """A deep copy gives the same bits, also after a backward pass, and shares nothing."""
        x, labels = labeled()
        head = self.build(x, labels)
        gradients(head, x, labels)
        twin, before = copy.deepcopy(head), head(x).detach()
        assert torch.equal(twin(x), before)
        for tensor in twin.state_dict().values():
            tensor.zero_()
        assert torch.equal(head(x), before)

    def test_moves_to_double(self) -> None:
        """In float64 the head says the same, in float64."""
        x, labels = labeled()
        head = self.build(x, labels)
        single = head(x)
        double = head.double()(x)
        assert double.dtype == torch.float64
        assert_close(double, single.double(), rtol=1e-4, atol=1e-3)
        assert_close(head(x.double()), double)

    def test_a_fresh_head_is_alive(self) -> None:
        """The rows and every parameter that an answer depends on have a gradient."""
        x, labels = separable()
        head, rows = self.fresh(), x.clone().requires_grad_()
        loss(head, rows, labels).backward()
        assert rows.grad is not None
        assert (rows.grad.abs().sum(1) > 0).all()
        for name, parameter in head.named_parameters():
            idle = parameter.grad is None or bool((parameter.grad == 0).all())
            if not idle or not parameter.requires_grad:
                continue
            with torch.no_grad():
                before = head.eval()(x)
                parameter.add_(torch.rand_like(parameter))
                assert_close(head(x), before, rtol=1e-5, atol=1e-5, msg=f"{name} has no gradient and is not idle")

    def test_a_fresh_head_learns(self) -> None:
        """A few steps are enough for classes that lie apart."""
        x, labels = separable()
        head = self.fresh()
        free = [parameter for parameter in head.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam(free or [torch.zeros(1, requires_grad=True)], 0.1)
        for _ in range(40):
            adam.zero_grad()
            total = loss(head, x, labels)
            if free:
                total.backward()
                adam.step()
            head.update_memory(x, labels)
        assert float((head.eval()(x).argmax(1) == labels).float().mean()) > 0.95

    def test_every_parameter_has_a_finite_gradient(self) -> None:
        """In training, of the loss and the penalty together."""
        x, labels = labeled()
        head = self.build(x, labels).train()
        total = loss(head, x, labels) + head.penalty() / len(x)
        assert total.ndim == 0
        free = {name: parameter for name, parameter in head.named_parameters() if parameter.requires_grad}
        if free:
            total.backward()
        for name, parameter in free.items():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

    def test_gradient_reaches_the_rows(self) -> None:
        """And is finite, at a row of zeros too."""
        x, labels = labeled()
        rows = torch.cat([x, torch.zeros(1, DIMENSION)]).requires_grad_()
        self.build(x, labels)(rows).square().sum().backward()
        assert rows.grad is not None
        assert rows.grad.isfinite().all()
        assert not self.knows or rows.grad[:-1].abs().sum() > 0

    def test_gradients_accumulate_to_those_of_the_big_batch(self) -> None:
        """Four backward passes on quarters add up to one on the whole."""
        x, labels = labeled()
        head = self.build(x, labels)
        whole = gradients(head, x, labels)
        for name, summed in gradients(head, x, labels, parts=4).items():
            assert_close(summed, whole[name], rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")

    def test_half_precision_rows_give_single_precision_heads(self) -> None:
        """Float16 and bfloat16 rows: float32 parameters, finite answers near those of the same rows in float32."""
        x, labels = labeled()
        for dtype in (torch.float16, torch.bfloat16):
            half = x.to(dtype)
            head = self.build(half, labels)
            assert {tensor.dtype for tensor in head.state_dict().values() if tensor.is_floating_point()} == {
                torch.float32
            }
            assert head(half).dtype == torch.float32
            assert head(half).isfinite().all()
            assert_close(head(half), head(half.float()))

    def test_half_precision_heads_answer_in_half_precision(self) -> None:
        """Near the answers in float32, which is what they are computed in."""
        x, labels = labeled()
        head = self.build(x, labels)
        for dtype, apart in ((torch.float16, 0.01), (torch.bfloat16, 0.05)):
            half = copy.deepcopy(head).to(dtype)
            rows = x.to(dtype)
            found = half(rows)
            assert found.dtype == dtype
            assert found.isfinite().all()
            assert half.class_scores(rows).dtype == torch.float32
            assert_close(found, copy.deepcopy(half).float()(rows.float()).to(dtype))
            assert float((found.float().exp() - head(x).exp()).detach().abs().mean()) < apart

    def test_any_number_of_dimensions_before_the_features(self) -> None:
        """As ``nn.Linear`` has it: the class axis comes last, and none, two or three axes before it."""
        x, labels = labeled()
        head = self.build(x, labels)
        asked = [head, head.posterior, head.class_scores]
        asked += [head.component_log_prob, head.log_prob] if self.density else []
        for ask in asked:
            whole = ask(x[:24])
            for shape in ((2, 3, 4), (24, 1), (1, 24)):
                found = ask(x[:24].reshape(*shape, DIMENSION))
                assert_close(found, whole.reshape(*shape, *whole.shape[1:]), rtol=1e-5, atol=1e-5)
            assert_close(ask(x[0]), whole[0], rtol=1e-4, atol=1e-4)
            assert ask(x[:0].reshape(2, 0, DIMENSION)).shape == (2, 0, *whole.shape[1:])

    def test_a_head_on_the_meta_device_loads_by_assignment(self) -> None:
        """Everything that an answer needs is in the state, also in that of an older head."""
        x, labels = labeled()
        head = self.build(x, labels)
        older = {name: value for name, value in head.state_dict().items() if not name.endswith("members")}
        for state in (head.state_dict(), older):
            with torch.device("meta"):
                empty = type(head)(**head.config())
            empty.load_state_dict(state, assign=True)
            assert torch.equal(empty.eval()(x), head(x))

    def test_a_start_is_tempered(self) -> None:
        """The rows themselves want no other temperature, to 0.02 nats, and the best one changes nothing."""
        x, labels = labeled()
        head = self.build(x, labels)
        log_posterior = head(x).detach()
        now = temperature.nll(log_posterior, labels)
        for degrees in torch.logspace(-1, 1, 21).tolist():
            assert not self.knows or now < temperature.nll(log_posterior, labels, degrees) + 0.02, degrees
        head.set_temperature(temperature.best(head.class_scores(x).detach(), labels))
        assert not self.knows or abs(temperature.nll(head(x).detach(), labels) - now) < 0.02

    def test_arrays_of_numpy_are_rows(self) -> None:
        """The same head as from tensors."""
        x, labels = labeled()
        assert torch.equal(self.build(x.numpy(), labels.numpy())(x), self.build(x, labels)(x))

    def test_bad_input_is_one_sentence(self) -> None:
        """NaN, a class without rows, labels that do not fit, names that stand for nothing."""
        x, labels = labeled()
        self.refused(NonFinite, x.index_fill(0, torch.tensor([7]), torch.nan), labels)
        self.refused(DataError, x, labels % (N_CLASSES - 1))
        self.refused(DataError, x, labels + 1)
        self.refused(DataError, x, labels - 1)
        self.refused(DataError, x[:0], labels[:0])
        for name, value in self.options.items():
            if isinstance(value, str):
                self.refused(UsageError, x, labels, **{name: "nonsense"})
            if isinstance(value, tuple) and all(isinstance(part, str) for part in value):  # pyright: ignore[reportUnknownVariableType]
                self.refused(UsageError, x, labels, **{name: ("nonsense",)})

    def refused(self, kind: type[MixturaError], x: Rows, labels: Labels, **options: Any) -> None:
        """See that a start is refused by one line of an error of a kind."""
        try:
            self.build(x, labels, **options)
        except kind as error:
            text = str(error)
            assert "\n" not in text
            assert text.endswith(".")
            return
        raise AssertionError(f"{self.head_type.name} took {options} and rows of shape {tuple(x.shape)}")

    def test_stacked_heads_are_the_heads_one_by_one(self) -> None:
        """Two heads mapped as one: same outputs, same gradients."""
        x, labels = labeled()
        heads = [self.build(x, labels), self.build(x + 1, labels, seed=1)]
        base = copy.deepcopy(heads[0])
        parameters, buffers = stack_module_state(heads)  # pyright: ignore[reportArgumentType]

        def one(p: Any, b: Any) -> Tensor:
            return functional_call(base, (p, b), (x,))

        stacked = vmap(one, randomness="different")(parameters, buffers)
        for i, head in enumerate(heads):
            assert_close(stacked[i], head(x), rtol=1e-4, atol=1e-4)
        free = [name for name, parameter in base.named_parameters() if parameter.requires_grad]
        if free:
            picked = stacked.gather(2, labels.expand(2, -1)[..., None]).mean((1, 2))
            found = torch.autograd.grad(-picked.sum(), [parameters[n] for n in free], allow_unused=True)
            for i, head in enumerate(heads):
                alone = gradients(head, x, labels)
                for name, gradient in zip(free, found, strict=True):
                    expected = torch.zeros_like(alone[name]) if gradient is None else gradient[i]
                    assert_close(alone[name], expected, rtol=1e-3, atol=1e-5)

    def test_rows_are_judged_one_by_one(self) -> None:
        """Other rows, and their order, change nothing; no row at all is fine."""
        x, labels = labeled()
        head = self.build(x, labels)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        assert_close(head(x[order]), head(x)[order], rtol=1e-5, atol=1e-5)
        assert_close(head(x[:1]), head(x)[:1], rtol=1e-4, atol=1e-4)
        assert head(x[:0]).shape == (0, N_CLASSES)

    def test_odd_rows_give_finite_answers(self) -> None:
        """One row a class, copies of one row, zeros, very small and very large numbers."""
        x, labels = labeled()
        few = slice(0, 3 * N_CLASSES)
        own = torch.arange(3 * N_CLASSES) % N_CLASSES
        odd = [(x[:N_CLASSES], own[:N_CLASSES]), (x[:1].expand_as(x[few]), own), (torch.zeros_like(x[few]), own)]
        odd += [(scale * x, labels) for scale in (1e-12, 1e12)]
        for rows, classes in odd:
            assert self.build(rows, classes)(rows).isfinite().all()

    def test_a_density_is_consistent_or_refused(self) -> None:
        """The evidence and the scores are log-sum-exps of the joint; a head without a density says so."""
        x, labels = labeled()
        head = self.build(x, labels)
        if not self.density:
            for ask in (head.log_prob, head.component_log_prob):
                try:
                    ask(x)
                except NoDensity as error:
                    assert head.name in str(error)
                    continue
                raise AssertionError(f"{head.name} gave a density that it does not have")
            return
        assert_close(head.log_prob(x), head.component_log_prob(x).logsumexp(1), rtol=1e-5, atol=1e-4)
        assert_close(head.class_scores(x).logsumexp(1), head.log_prob(x), rtol=1e-5, atol=1e-4)

    def test_a_temperature_softens_the_answers_and_never_a_density(self) -> None:
        """At twice its temperature the head is less sure; a density stays as it is."""
        x, labels = labeled()
        head = self.build(x, labels)
        before, scores = head(x), head.class_scores(x)
        head.set_temperature(2 * temperature.best(scores.detach(), labels))
        if self.density:
            assert_close(head.class_scores(x), scores, rtol=1e-5, atol=1e-5)
        surety = [float(part.amax(1).mean().detach()) for part in (before, head(x))]
        assert surety[1] < surety[0] or not self.knows

    def test_compiles(self) -> None:
        """Traced by TorchDynamo, with as many rows as one likes."""
        x, labels = labeled()
        head = self.build(x, labels)
        torch.compiler.reset()
        traced = torch.compile(head, backend="eager", dynamic=True)
        with warnings.catch_warnings(), unchecked_shapes():
            warnings.simplefilter("ignore")  # where shapes are checked, the trace is in parts
            for rows in (x, x[:7]):
                assert_close(traced(rows), head(rows), rtol=1e-5, atol=1e-5)

    def test_exports_to_onnx(self) -> None:
        """With a batch of any size, run by ONNX Runtime; needs the ``onnx`` extra."""
        import onnxruntime

        x, labels = labeled()
        head = self.build(x, labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                head, (x[:5],), dynamo=True, dynamic_shapes=({0: torch.export.Dim("rows")},), verbose=False
            )
            assert program is not None
            model = program.model_proto.SerializeToString()
            session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        for rows in (x, x[:3]):
            (found,) = session.run(None, {session.get_inputs()[0].name: rows.numpy()})
            assert_close(torch.from_numpy(found), head(rows).detach(), rtol=1e-4, atol=1e-4)

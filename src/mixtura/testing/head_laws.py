"""Laws of every head.

Inherit from :class:`HeadLaws` in a test file, set how the head is built, and pytest collects the laws::

    class TestMyHead(HeadLaws):
        head_type = MyHead
        options = {"components": 2}

Without pytest, ``TestMyHead().run()`` runs them all.
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
    """Samples and labels of overlapping classes with two clusters each, float32."""
    x, part = clusters(n, 2 * N_CLASSES, DIMENSION, seed)
    return x.float(), part % N_CLASSES


def separable(n: int = 96) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
    """Samples and labels of classes on separate axes, float32, which every head should learn easily."""
    labels = torch.arange(n) % N_CLASSES
    noise = torch.randn(n, DIMENSION, generator=torch.Generator().manual_seed(5))
    return 2 * torch.eye(DIMENSION)[labels] + 0.3 * noise, labels


def loss(head: Callable[[Tensor], Tensor], x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Cross-entropy in nats."""
    return nn.functional.nll_loss(head(x), labels)


def gradients(head: Head, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], parts: int = 1) -> dict[str, Tensor]:
    """Loss gradients accumulated over equal parts of the samples; zero for a parameter without a gradient."""
    head.zero_grad()
    if any(parameter.requires_grad for parameter in head.parameters()):
        for rows, own in zip(x.chunk(parts), labels.chunk(parts), strict=True):
            (loss(head, rows, own) / parts).backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in head.named_parameters()
    }


class HeadLaws:
    """Laws of a head; set ``head_type`` and, if needed, the ``options`` of its ``from_rows``.

    ``density``: the head gives log p(x, c). ``knows``: its initialization uses the labels. Override :meth:`build` for
    a head that is not initialized from samples.
    """

    head_type: ClassVar[type[Head]]
    options: ClassVar[dict[str, Any]] = {}
    density: ClassVar[bool] = False
    knows: ClassVar[bool] = True

    def build(self, x: Any, labels: Any, seed: int = 0, **options: Any) -> Head:
        """Initialized head in ``eval()`` mode; samples and labels are tensors or arrays."""
        return self.head_type.from_rows(x, labels, N_CLASSES, seed=seed, **self.options | options).eval()

    def fresh(self) -> Head:
        """Uninitialized head of the same configuration, straight from its constructor."""
        head = self.build(*labeled())
        torch.manual_seed(1)
        return type(head)(**json.loads(json.dumps(head.config()))).train()

    def run(self) -> list[str]:
        """Run every law and return their names; the first violated law raises."""
        names = [name for name in dir(self) if name.startswith("test_")]
        for name in names:
            getattr(self, name)()
        return names

    def test_is_a_head(self) -> None:
        """The head has the methods that objectives need, including those for densities if it has one."""
        head = self.build(*labeled())
        assert isinstance(head, AnyHead)
        further = ("groups", "density_dimension", "distances")  # of a GenerativeHead
        assert not self.density or all(hasattr(head, name) for name in further)

    def test_posterior_is_a_distribution_and_forward_its_log(self) -> None:
        """Posteriors sum to one and rank classes like the scores."""
        x, labels = labeled()
        head = self.build(x, labels)
        posterior = head.posterior(x)
        assert posterior.shape == (len(x), N_CLASSES)
        assert_close(posterior.sum(1), torch.ones(len(x)), rtol=0, atol=1e-5)
        assert_close(head(x).exp(), posterior, rtol=0, atol=1e-6)
        assert torch.equal(head.class_scores(x).argmax(1), posterior.argmax(1))

    def test_start_beats_chance(self) -> None:
        """The initialized head classifies more than half of its samples correctly."""
        x, labels = labeled()
        found = self.build(x, labels)(x).argmax(1)
        assert not self.knows or float((found == labels).float().mean()) > 0.5

    def test_config_and_state_are_the_head(self) -> None:
        """A head rebuilt from its state and its configuration, via JSON, gives bit-identical outputs."""
        x, labels = labeled()
        head = self.build(x, labels)
        again = type(head)(**json.loads(json.dumps(head.config())))
        again.load_state_dict(head.state_dict(), strict=True)
        assert torch.equal(again.eval()(x), head(x))
        assert again.n_parameters == head.n_parameters > 0
        assert again.sparsity == head.sparsity
        assert (again.dimension, again.n_classes) == (DIMENSION, N_CLASSES)

    def test_copies_are_copies(self) -> None:
        """A deep copy gives bit-identical outputs, also after a backward pass, and shares no memory."""
        x, labels = labeled()
        head = self.build(x, labels)
        gradients(head, x, labels)
        twin, before = copy.deepcopy(head), head(x).detach()
        assert torch.equal(twin(x), before)
        for tensor in twin.state_dict().values():
            tensor.zero_()
        assert torch.equal(head(x), before)

    def test_moves_to_double(self) -> None:
        """The head gives the same outputs in float64, as float64."""
        x, labels = labeled()
        head = self.build(x, labels)
        single = head(x)
        double = head.double()(x)
        assert double.dtype == torch.float64
        assert_close(double, single.double(), rtol=1e-4, atol=1e-3)
        assert_close(head(x.double()), double)

    def test_a_fresh_head_is_alive(self) -> None:
        """The samples and every parameter that the output depends on have a gradient."""
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
        """A few steps are enough to learn separable classes."""
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
        """Gradients of loss plus penalty are finite in training mode."""
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
        """The input gradient is nonzero, and finite even for a zero sample."""
        x, labels = labeled()
        rows = torch.cat([x, torch.zeros(1, DIMENSION)]).requires_grad_()
        self.build(x, labels)(rows).square().sum().backward()
        assert rows.grad is not None
        assert rows.grad.isfinite().all()
        assert not self.knows or rows.grad[:-1].abs().sum() > 0

    def test_gradients_accumulate_to_those_of_the_big_batch(self) -> None:
        """Four backward passes on quarters add up to one pass on all samples."""
        x, labels = labeled()
        head = self.build(x, labels)
        whole = gradients(head, x, labels)
        for name, summed in gradients(head, x, labels, parts=4).items():
            assert_close(summed, whole[name], rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")

    def test_half_precision_rows_give_single_precision_heads(self) -> None:
        """Float16 and bfloat16 samples give float32 parameters and finite outputs close to those in float32."""
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
        """Outputs are close to those in float32, the compute dtype."""
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
        """As in ``nn.Linear``, the class axis is last, after none, two or three leading axes."""
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
        """The state, also that of an older head, contains everything that an output needs."""
        x, labels = labeled()
        head = self.build(x, labels)
        older = {name: value for name, value in head.state_dict().items() if not name.endswith("members")}
        for state in (head.state_dict(), older):
            with torch.device("meta"):
                empty = type(head)(**head.config())
            empty.load_state_dict(state, assign=True)
            assert torch.equal(empty.eval()(x), head(x))

    def test_a_start_is_tempered(self) -> None:
        """No temperature is 0.02 nats better on the training samples, and setting the best one changes nothing."""
        x, labels = labeled()
        head = self.build(x, labels)
        log_posterior = head(x).detach()
        now = temperature.nll(log_posterior, labels)
        for degrees in torch.logspace(-1, 1, 21).tolist():
            assert not self.knows or now < temperature.nll(log_posterior, labels, degrees) + 0.02, degrees
        head.set_temperature(temperature.best(head.class_scores(x).detach(), labels))
        assert not self.knows or abs(temperature.nll(head(x).detach(), labels) - now) < 0.02

    def test_arrays_of_numpy_are_rows(self) -> None:
        """NumPy arrays give the same head as tensors."""
        x, labels = labeled()
        assert torch.equal(self.build(x.numpy(), labels.numpy())(x), self.build(x, labels)(x))

    def test_bad_input_is_one_sentence(self) -> None:
        """NaN, a class without samples, invalid labels and unknown names raise."""
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
        """Check that initialization raises a given error with a one-line message."""
        try:
            self.build(x, labels, **options)
        except kind as error:
            text = str(error)
            assert "\n" not in text
            assert text.endswith(".")
            return
        raise AssertionError(f"{self.head_type.name} took {options} and rows of shape {tuple(x.shape)}")

    def test_stacked_heads_are_the_heads_one_by_one(self) -> None:
        """Two heads under vmap have the same outputs and gradients as alone."""
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
        """Outputs do not depend on other samples or their order; zero samples are fine."""
        x, labels = labeled()
        head = self.build(x, labels)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        assert_close(head(x[order]), head(x)[order], rtol=1e-5, atol=1e-5)
        assert_close(head(x[:1]), head(x)[:1], rtol=1e-4, atol=1e-4)
        assert head(x[:0]).shape == (0, N_CLASSES)

    def test_odd_rows_give_finite_answers(self) -> None:
        """One sample per class, copies of one sample, zeros, very small and very large numbers."""
        x, labels = labeled()
        few = slice(0, 3 * N_CLASSES)
        own = torch.arange(3 * N_CLASSES) % N_CLASSES
        odd = [(x[:N_CLASSES], own[:N_CLASSES]), (x[:1].expand_as(x[few]), own), (torch.zeros_like(x[few]), own)]
        odd += [(scale * x, labels) for scale in (1e-12, 1e12)]
        for rows, classes in odd:
            assert self.build(rows, classes)(rows).isfinite().all()

    def test_a_density_is_consistent_or_refused(self) -> None:
        """``log_prob`` and class scores are log-sum-exps of ``component_log_prob``; heads without a density raise."""
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
        """At twice the temperature the head is less confident; its density is unchanged."""
        x, labels = labeled()
        head = self.build(x, labels)
        before, scores = head(x), head.class_scores(x)
        head.set_temperature(2 * temperature.best(scores.detach(), labels))
        if self.density:
            assert_close(head.class_scores(x), scores, rtol=1e-5, atol=1e-5)
        surety = [float(part.amax(1).mean().detach()) for part in (before, head(x))]
        assert surety[1] < surety[0] or not self.knows

    def test_compiles(self) -> None:
        """TorchDynamo traces the head, for any number of samples."""
        x, labels = labeled()
        head = self.build(x, labels)
        torch.compiler.reset()
        traced = torch.compile(head, backend="eager", dynamic=True)
        with warnings.catch_warnings(), unchecked_shapes():
            warnings.simplefilter("ignore")  # shape checks cause graph breaks
            for rows in (x, x[:7]):
                assert_close(traced(rows), head(rows), rtol=1e-5, atol=1e-5)

    def test_exports_to_onnx(self) -> None:
        """ONNX Runtime gives the same outputs for any batch size; needs the ``onnx`` extra."""
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

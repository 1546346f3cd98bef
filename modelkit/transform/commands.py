"""The commands that transform a model: what each is made of. Adding a command is adding one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.algorithm.config import TransformConfig
from modelkit.checkpoint.loading import Loading
from modelkit.compress.config import CompressConfig
from modelkit.config.resolve import Resolved, resolve
from modelkit.distill.config import DistillConfig
from modelkit.pack.config import PackConfig
from modelkit.prune.config import PruneConfig
from modelkit.quantize.config import QuantizeConfig
from modelkit.train.config import followed_where_unlabelled
from modelkit.transform.job import Job, Maker

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.compress.auto import Compressor, Share, Sparsify
    from modelkit.data.dataset import Dataset
    from modelkit.decision import Decision
    from modelkit.distill.integers import Quantize
    from modelkit.progress import Progress
    from modelkit.train.qat import Trainer


@dataclass(frozen=True)
class Command:
    """A command that turns a model into an artifact.

    Attributes:
        schema: Its config.
        suffix: What the artifact's name has before ``.onnx``, by the config: "int8", "pruned".
        maker: Gives what makes a job's algorithm, once the model and its data are known; imports the algorithms.
        safe: Whether the built-in limits hold where no budget is set.
        training: Whether it trains, and so gets most of the data.
        writes_back: Whether a state dict that the model came from is written back with the same changes.
        keeps_best: Whether what is nearest to a missed budget is kept beside the report.
        exact: Whether no number may change: the graph is not cleaned up then.
        reads: Files that its config names.
    """

    schema: type[TransformConfig]
    suffix: Callable[[Any], str]
    maker: Callable[[Job], Maker]
    safe: Callable[[Any], bool]
    training: Callable[[Any], bool]
    writes_back: bool = False
    exact: bool = False
    keeps_best: bool = False
    reads: Callable[[Any], list[Path]] = lambda config: []


def _quantizer(job: Job) -> Maker:
    from modelkit.measure.machine import int8_kind
    from modelkit.quantize.auto import Quantizer

    return lambda model, data: Quantizer(model, job.options.value, data, int8_kind())


def _pruner(job: Job) -> Maker:
    from modelkit.prune.auto import Pruner

    return lambda model, data: Pruner(model, job.options.value, data)


def _distiller(job: Job) -> Maker:
    from modelkit.distill.auto import Distiller

    config: DistillConfig = job.options.value
    quantize = None if config.bits is None else _student_quantizer(config)
    return lambda model, data: Distiller(model, config, data, job.work, job.kept, quantize)


def _student_quantizer(config: DistillConfig) -> Quantize:
    """What makes a student one of integers: commands do not know one another, so it is handed in from here."""
    from modelkit.measure.machine import int8_kind
    from modelkit.quantize.auto import Quantizer

    given = {"mode": "static", "bits": config.bits, "pack": config.pack, "seed": config.seed}
    options = QuantizeConfig.model_validate(given)

    def quantize(model: ir.Model, data: Dataset, trainer: Trainer, progress: Progress) -> list[Decision]:
        return Quantizer(model.clone(), options, data, int8_kind()).train_static(model, trainer, progress)

    return quantize


def _compressor(job: Job) -> Maker:
    from modelkit.compress.auto import Compressor

    config: CompressConfig = job.options.value

    def make(model: ir.Model, data: Dataset | None) -> Compressor:
        return Compressor(model, config, data, *_compressing(config, model, data))

    return make


def _compressing(config: CompressConfig, model: ir.Model, data: Dataset | None) -> tuple[Sparsify, Share]:
    """What prunes and what shares values: commands do not know one another, so both are handed in from here."""
    from modelkit.channels.unused import cut_unused
    from modelkit.graph.load import load
    from modelkit.graph.normalise import normalise
    from modelkit.prune.weights.sparse import prune_by_magnitude
    from modelkit.prune.weights.trained import prune_in_training
    from modelkit.quantize.palettes import share_and_train

    followed = model
    if config.teacher is not None:
        followed = load(config.teacher).model
        normalise(followed)
    common = {"include": config.include, "exclude": config.exclude, "seed": config.seed}

    def sparsify(model: ir.Model, sparsity: float, progress: Progress) -> list[Decision]:
        pruning = PruneConfig.model_validate({"sparsity": sparsity, "scope": config.scope, **common})
        if data is None or not config.pruning.epochs:
            return prune_by_magnitude(model, pruning)
        options = followed_where_unlabelled(config.pruning, data)
        return prune_in_training(model, pruning, data, options, followed, progress)

    def share(model: ir.Model, values: int, progress: Progress) -> list[Decision]:
        cut = cut_unused(model, exclude=config.exclude)
        given = {"codebook": {"values": values, "biases": config.biases}, "pack": config.pack, **common}
        quantization = QuantizeConfig.model_validate(given)
        options = followed_where_unlabelled(config.sharing, data)
        return [*cut, *share_and_train(model, quantization, data, options, followed, progress)]

    return sparsify, share


def _packer(job: Job) -> Maker:
    from modelkit.pack.auto import Packer

    config: PackConfig = job.options.value
    return lambda model, data: Packer(model, config)


def _bits(config: QuantizeConfig) -> str:
    if config.codebook.values is not None:
        return f"codebook{config.codebook.values}"
    if config.mode in ("float16", "bfloat16"):
        return config.mode
    return "16bit" if config.bits == 16 else f"int{config.bits}"


COMMANDS: dict[str, Command] = {
    "quantize": Command(
        schema=QuantizeConfig,
        suffix=_bits,
        maker=_quantizer,
        safe=lambda config: config.mode == "auto",
        training=lambda config: config.qat.enabled,
    ),
    "prune": Command(
        schema=PruneConfig,
        suffix=lambda config: "pruned",
        maker=_pruner,
        safe=lambda config: False,
        training=lambda config: config.finetune.epochs > 0,
        writes_back=True,
    ),
    "distill": Command(
        schema=DistillConfig,
        suffix=lambda config: "distilled" if config.bits is None else f"distilled.int{config.bits}",
        maker=_distiller,
        safe=lambda config: False,
        training=lambda config: True,
        reads=lambda config: config.files,
    ),
    "compress": Command(
        schema=CompressConfig,
        suffix=lambda config: "compressed",
        maker=_compressor,
        safe=lambda config: False,
        training=lambda config: config.pruning.epochs > 0 or config.sharing.epochs > 0,
        keeps_best=True,
        reads=lambda config: config.files,
    ),
    "pack": Command(
        schema=PackConfig,
        suffix=lambda config: "packed",
        maker=_packer,
        safe=lambda config: False,
        training=lambda config: False,
        exact=True,
        keeps_best=True,
    ),
}


def artifact_name(command: str, model: Path, config: TransformConfig) -> str:
    """The artifact's name beside its model: ``model.int8.onnx``, ``model.pruned.onnx``."""
    return f"{model.stem}.{COMMANDS[command].suffix(config)}.onnx"


def make_job(
    command: str,
    model: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    config: Resolved[Any] | Mapping[str, Any] | None = None,
    force: bool = False,
    html: bool = False,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    resume: bool = False,
) -> Job:
    """Describe a run of a command without starting it.

    Args:
        command: A key of ``COMMANDS``.
        model: An ONNX file or a checkpoint.
        output: Where the artifact goes; by default beside the model.
        data: Inputs, with labels or without.
        test: Labelled inputs for the final figures only.
        config: Options as dotted keys, or already resolved.
        force: Whether to overwrite an artifact that exists.
        html: Whether to write the report as a page for the browser too.
        loading: For a checkpoint its architecture, inputs and trust.
        resume: Whether to go on from what an interrupted run left.

    Raises:
        ConfigError: The config has values that the command does not take.
    """
    found, source = COMMANDS[command], Path(model)
    if not isinstance(config, Resolved):
        config = resolve(found.schema, flags={key: (value, key) for key, value in (config or {}).items()})
    options: TransformConfig = config.value
    return Job(
        command=command,
        model=source,
        output=Path(output) if output is not None else source.with_name(artifact_name(command, source, options)),
        options=config,
        safe=found.safe(options),
        data=None if data is None else Path(data),
        test=None if test is None else Path(test),
        preprocess=options.preprocess,
        force=force,
        html=html,
        training=found.training(options),
        writes_back=found.writes_back,
        exact=found.exact,
        keeps_best=found.keeps_best,
        loading=loading,
        reads=tuple(found.reads(options)),
        resume=resume,
    )


def maker_of(job: Job) -> Maker:
    """Return what makes a job's algorithm once the model and its data are known."""
    return COMMANDS[job.command].maker(job)

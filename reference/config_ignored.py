"""Keys of a `config.json` that do not change what FastVLM computes, each group with its reason."""

IGNORED_COMMON_KEYS = (
    # Bookkeeping of `transformers`.
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "is_encoder_decoder",
    "torch_dtype",
    "transformers_version",
    # Training only.
    "initializer_range",
    "num_classes",
    "num_labels",
    "label_names",
    # Token ids that generation does not use.
    "bos_token_id",
    "pad_token_id",
    # transformers.js reads it in a bundle's config.
    "transformers.js_config",
)

IGNORED_QWEN2_KEYS = (
    *IGNORED_COMMON_KEYS,
    "attention_dropout",
    "layer_types",
    # Sliding windows are off (`use_sliding_window` is checked), so their sizes say nothing.
    "max_window_layers",
    "sliding_window",
    "use_cache",
)

IGNORED_APPLE_KEYS = (
    # Which parts were trained, and how fast.
    "freeze_mm_mlp_adapter",
    "mm_projector_lr",
    "mm_vision_tower_lr",
    "mm_tunable_parts",
    "tune_mm_mlp_adapter",
    "unfreeze_mm_vision_tower",
    # Only read with `image_aspect_ratio: anyres`, which is refused.
    "image_grid_pinpoints",
    "image_crop_resolution",
    "image_split_resolution",
    # FastViTHD has one feature map; LLaVA's layer index does not select from it.
    "mm_vision_select_layer",
    # The prompt is not padded.
    "tokenizer_padding_side",
    # Apple's app writes an empty or a FastViTHD section; the tower's name decides.
    "vision_config",
)

IGNORED_TRANSFORMERS_KEYS = ("use_cache",)

IGNORED_TIMM_KEYS = (
    # FastVLM reads the feature map, never the pooled head.
    "do_pooling",
    "global_pool",
    "num_features",
    "pretrained_cfg",
)

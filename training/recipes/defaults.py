"""What each recipe's options are by default: by architecture, for they do not train alike.

Nothing heavy is imported here, so that `--help` shows them at once.
"""

from collections.abc import Mapping

Defaults = Mapping[str, Mapping[str, object]]

FASHION: Defaults = {
    "convnet": {
        "epochs": 8,
        "optimizer": "muon",
        "learning_rate": 0.012,
        "weight_decay": 0.05,
        "label_smoothing": 0.1,
        "shift_pixels": 1,
        "ema_decay": 0.99,
    },
    "resnet": {
        "epochs": 26,
        "optimizer": "muon",
        "learning_rate": 0.012,
        "weight_decay": 0.05,
        "label_smoothing": 0.05,
        "shift_pixels": 2,
        "erase": 0.5,
        "ema_decay": 0.999,
    },
}

# Of an architecture that is not named, the entry of `ANY`.
ANY = "any other"
PRETRAINED = "pretrained"
OWN_IMAGES: Defaults = {
    "convnet": {"epochs": 20, "weight_decay": 0.05, "label_smoothing": 0.05, "shift_pixels": 2, "batch_size": 64},
    ANY: {
        "epochs": 30,
        "weight_decay": 0.05,
        "label_smoothing": 0.05,
        "shift_pixels": 4,
        "erase": 0.25,
        "batch_size": 64,
    },
    PRETRAINED: {
        "arch": "efficientnet_lite0",
        "epochs": 8,
        "learning_rate": 0.002,
        "weight_decay": 0.01,
        "label_smoothing": 0.05,
        "shift_pixels": 8,
        "batch_size": 32,
    },
}

_TEXTS: Mapping[str, object] = {
    "epochs": 4,
    "batch_size": 128,
    "learning_rate": 0.004,
    "weight_decay": 0.0001,
    "warmup_fraction": 0.05,
    "clip_norm": 1.0,
    "word_dropout": 0.1,
    "vocabulary": 40_000,
}
TEXTS: Defaults = {
    "committee": {**_TEXTS, "dim": 64, "hidden_size": 64, "dropout": 0.5},
    "bag": {**_TEXTS, "dim": 8, "dropout": 0.5},
    "lstm": {**_TEXTS, "dim": 64, "hidden_size": 64, "dropout": 0.5},
    "gru": {**_TEXTS, "dim": 64, "hidden_size": 64, "dropout": 0.5},
    "transformer": {**_TEXTS, "dim": 64, "layers": 2, "dropout": 0.3, "epochs": 5, "learning_rate": 0.002},
}

PAIRS: Defaults = {
    "seq2seq": {
        "dim": 256,
        "hidden_size": 512,
        "layers": 3,
        "learning_rate": 0.001,
        "label_smoothing": 0.1,
        "clip_norm": 1.0,
        "ema_decay": 0.999,
    }
}
PRONOUNCE: Defaults = {
    "seq2seq": {
        **PAIRS["seq2seq"],
        "epochs": 10,
        "max_steps": 40,
        "max_tokens": 64,
        "tokens": "chars",
        "target_tokens": "words",
    }
}

"""Three classifiers of texts that err differently, summed. Axes: P members, N rows, L tokens, K labels."""

from typing import Final

import torch
from torch import Tensor, nn

from training.architectures.character_bag import CharacterBag
from training.architectures.naive_bayes import NaiveBayes
from training.architectures.recurrent import Recurrent

# Counted and not trained, it is much too sure of itself: its log-probabilities count by this share.
BAYES_SHARE = 0.3


class Committee(nn.Module):
    """A recurrent network, a bag of character n-grams and naive Bayes: words in order, within, and in pairs.

    Each learns alone, from its own loss; together they say the sum of their logits.

    Args:
        recurrent: Reads the words in their order.
        characters: Reads what is in the words.
        bayes: Has counted words and pairs.
    """

    BAYES_SHARE: Final[float] = BAYES_SHARE  # TorchScript reads constants of a class, not of a file

    def __init__(self, recurrent: Recurrent, characters: CharacterBag, bayes: NaiveBayes) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.characters = characters
        self.bayes = bayes

    def member_logits(self, tokens_NL: Tensor) -> Tensor:
        """Return the logits of those members that are trained, of shape PNK."""
        return torch.stack([self.recurrent(tokens_NL), self.characters(tokens_NL)])

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Classify rows of tokens.

        Args:
            tokens_NL: int64, padded with 0.

        Returns:
            float logits of shape NK.
        """
        trained_NK = self.recurrent(tokens_NL) + self.characters(tokens_NL)
        logits_NK: Tensor = trained_NK + self.BAYES_SHARE * self.bayes(tokens_NL)
        return logits_NK

"""Whether a failure is one of too little memory: torch has a class for that, and loses it on the way."""

# Of a GPU, of the machine, and of the machine as torch says it.
SIGNS = ("out of memory", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Say of a failure whether less would have succeeded.

    torch raises a class of its own for a GPU's memory, and a plain RuntimeError for the machine's; TorchScript's
    interpreter, a plain RuntimeError for whatever its operators raise (pytorch/pytorch, issue 148642).
    """
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS)

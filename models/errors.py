"""Everything that can be wrong with a model on disk, or with the bytes given to one.

ModelsError
├── BundleError               a version directory that must not be loaded
│   ├── ManifestInvalid       manifest.json is missing, not JSON, or off its schema
│   ├── SchemaVersionUnknown  written by a Lantern this one does not know
│   ├── PathEscapes           a listed path leaves the directory, or a link stands in it
│   ├── FileMissing           listed, but not there, or not to be read
│   ├── FileUnexpected        there, but not listed
│   ├── FileCorrupt           its size or sha256 is not the listed one
│   ├── SignatureMissing      a signature is wanted, and there is none
│   ├── SignatureInvalid      manifest.sig is no trusted key's signature of manifest.json
│   ├── ArchiveInvalid        its TorchScript file is not one as torch writes it
│   ├── OperatorsNotAllowed   its TorchScript file could do more than compute
│   ├── TokenizerInvalid      its tokenizer cannot be read, or is none that a graph can rely on
│   └── GoldenMismatch        whole, but loaded it does not give its golden scores
├── RepositoryError
│   ├── ModelNotFound         no such name, or nothing of it published
│   ├── VersionNotFound       the name is there, the version is not
│   ├── CurrentInvalid        CURRENT or defaults.json cannot be read or names nothing whole
│   ├── CandidateInvalid      CANDIDATE cannot be read, or there is none
│   └── NotWritable           nothing can be published here
├── KeyFileInvalid            a file of keys cannot be used, to sign or to trust, or not be written
├── DeviceUnavailable         the device asked for is not on this machine
├── DeviceLost                the device had a fault that does not pass
├── BackendUnavailable        a backend wants a library or instructions that are not on this machine
└── ExampleError              bytes that cannot become an example
    ├── UndecodableImage      not a supported, whole image
    ├── ImageTooLarge         more pixels than allowed, seen in the header
    ├── TensorUnfit           prepared elsewhere, and not as the graph takes it
    ├── TextEmpty             nothing but white space
    ├── TextNotUtf8           not in the one encoding that is taken
    ├── TextUnfit             nothing that the model's tokenizer can take apart
    └── TextTooLong           more tokens than the model takes
"""


class ModelsError(Exception):
    """The root of what `models` raises on purpose."""


class BundleError(ModelsError):
    """A version directory that must not be loaded."""


class ManifestInvalid(BundleError):
    """manifest.json is missing, not JSON, off its schema, or not the one that was published."""


class SchemaVersionUnknown(BundleError):
    """manifest.json was written in a schema version that this Lantern does not know."""


class PathEscapes(BundleError):
    """A path in the bundle leaves its directory, or something in it is not a plain file."""


class FileMissing(BundleError):
    """A file that the manifest lists is not there, or cannot be read."""


class FileUnexpected(BundleError):
    """A file is there that the manifest does not list."""


class FileCorrupt(BundleError):
    """A file's size or sha256 is not the one that the manifest lists."""


class SignatureMissing(BundleError):
    """Only signed versions are trusted, and this one is not signed."""


class SignatureInvalid(BundleError):
    """manifest.sig is not what a trusted key made of manifest.json."""


class ArchiveInvalid(BundleError):
    """A TorchScript file is not one as torch writes it, so that it cannot be told what it would do."""


class OperatorsNotAllowed(BundleError):
    """A TorchScript file uses operators that are not known to do nothing but compute."""


class TokenizerInvalid(BundleError):
    """A bundle's tokenizer cannot be read, or does not begin with the special tokens."""


class GoldenMismatch(BundleError):
    """The loaded model does not give the scores that were recorded when it was published."""


class RepositoryError(ModelsError):
    """The model repository does not hold, or cannot take, what was asked for."""


class ModelNotFound(RepositoryError):
    """No model of that name is published."""


class VersionNotFound(RepositoryError):
    """The model is there, but not that version of it."""


class CurrentInvalid(RepositoryError):
    """CURRENT or defaults.json cannot be read, or names nothing that is there."""


class FeedbackUnavailable(ModelsError):
    """The file of corrections cannot be read or written."""


class FeedbackBusy(FeedbackUnavailable):
    """Somebody else has the file of corrections, for longer than is waited for."""


class FeedbackFull(FeedbackUnavailable):
    """The file of corrections may not grow, or there is no room for it."""


class CandidateInvalid(RepositoryError):
    """CANDIDATE cannot be read, or there is none where one is wanted."""


class NotWritable(RepositoryError):
    """The repository's directory cannot be written to."""


class KeyFileInvalid(ModelsError):
    """A file of keys cannot be used or written; the message says what is off, and never what the file holds."""


class DeviceUnavailable(ModelsError):
    """The device asked for is not on this machine."""


class DeviceLost(ModelsError):
    """The device had a fault that does not pass: only a new process gets it back."""


class BackendUnavailable(ModelsError):
    """A backend wants a library or instructions that are not on this machine."""


class ExampleError(ModelsError):
    """Bytes that cannot become an example."""


class UndecodableImage(ExampleError):
    """The bytes are not a supported, whole image."""


class ImageTooLarge(ExampleError):
    """The image has more pixels than allowed; seen in its header, before it is decoded."""


class TensorUnfit(ExampleError):
    """An example that was prepared elsewhere is not as the graph takes it."""


class TextEmpty(ExampleError):
    """The text holds nothing but white space."""


class TextNotUtf8(ExampleError):
    """The bytes of the text are not UTF-8."""


class TextUnfit(ExampleError):
    """The model's tokenizer gives up on the text."""


class TextTooLong(ExampleError):
    """The text has more tokens than the model takes."""

"""Image bytes -> the uint8 tensor that a model's graph takes; evaluation and serving both use this.

Only what fixes the shape happens here. Float conversion and normalisation are inside the graph. Bytes are
hostile until decoded: six named formats, the pixel count checked in the header before anything is decoded.
"""

import warnings
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, TiffTags
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from models import jpeg
from models.errors import ImageTooLarge, UndecodableImage
from models.image_structure import check_structure
from models.manifest import ImageDecoding

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

# Encoders write a dozen at most, and each passes over the whole image.
MOST_JPEG_SCANS = 100
MOST_SCANNED_PIXELS = 1_280_000_000
# A JPEG's own limit. Of a longer side the tables to scale it by would take more room than the image.
LONGEST_SIDE = 65_535
# Runs of equal pixels Pillow decodes in Python, a million in a sixth of a second.
MOST_RUN_LENGTH_PIXELS = 1_000_000
RUN_LENGTH_DECODER = "bmp_rle"
LARGEST_RUNS_BYTES = 65_536
# Together they take a few milliseconds, for which nothing else that is Python gets a turn.
BAND_PIXELS = 500_000

# The limit is ours, from the header and before decoding; Pillow's own would only warn.
Image.MAX_IMAGE_PIXELS = None

# Loads the codecs now: Pillow would import them all, for a third of a second, at the first image it cannot place.
Image.init()

# By itself Pillow reads uncompressed strips byte by byte where they overlap, and as many of them as are named,
# however few the image has. libtiff does not, and reads 16 bits in planes rightly.
TiffImagePlugin.READ_LIBTIFF = True

# Pillow warns of damaged metadata; the image itself is judged by whether it decodes.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")

UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The others undo themselves.
BACK = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}

_INTERPOLATION = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode_image(data: bytes, decoding: ImageDecoding, max_pixels: int | None = None) -> Tensor:
    """Decode an image file into an example.

    Args:
        data: The bytes of a JPEG, PNG, WebP, BMP, GIF or TIFF file; of several frames, the first counts.
        decoding: The model's own: colour, size, fit, orientation.
        max_pixels: A tighter limit than the model's, if the caller has one.

    Returns:
        uint8 tensor of shape CHW, 0 to 255.

    Raises:
        ImageTooLarge: Width times height is over the limit.
        UndecodableImage: The bytes are not a whole image of those formats.
    """
    limit = decoding.max_pixels if max_pixels is None else min(max_pixels, decoding.max_pixels)
    pixels_HWC = _decode_jpeg(data, decoding, limit)
    if pixels_HWC is not None and pixels_HWC.shape == (*decoding.size, decoding.channels) and decoding.stretches:
        return _to_tensor(pixels_HWC)
    if pixels_HWC is None:
        seen = as_seen(_open(data, limit), decoding.exif)
    else:
        seen = Image.fromarray(pixels_HWC if pixels_HWC.shape[2] > 1 else pixels_HWC[:, :, 0])
    fitted = _fit(seen if seen.mode == decoding.color else seen.convert(decoding.color), decoding)
    return _to_tensor(np.array(fitted, dtype=np.uint8).reshape(fitted.height, fitted.width, -1))


def as_seen(image: Image.Image, exif: bool = True) -> Image.Image:
    """Turn an opened image into what a person would see: mode `L` or `RGB`, upright, on white.

    Raises:
        UndecodableImage: The image is cut short, or its pixels have no defined appearance.
    """
    try:
        turn = _turn(image, exif)
        image.load()
        flat = _flatten(image)
        flat = flat if turn is None else flat.transpose(turn)
    except (UndecodableImage, MemoryError):
        raise
    except Exception as error:  # Hostile bytes make codecs raise anything: OSError, SyntaxError, struct.error...
        raise UndecodableImage(f"the {image.format} image is cut short or damaged") from error
    return flat


def is_image_file(data: bytes, max_pixels: int) -> bool:
    """Whether bytes begin as a file of one of the formats does, of an image that is not too large.

    Its pixels may still be damaged.
    """
    try:
        _open(data, max_pixels)
    except (UndecodableImage, ImageTooLarge):
        return False
    return True


def _to_tensor(pixels_HWC: NDArray[np.uint8]) -> Tensor:
    # By numpy: each of torch's operations gives up the interpreter's lock, and has to wait for it again.
    return torch.from_numpy(np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)))


def _decode_jpeg(data: bytes, decoding: ImageDecoding, max_pixels: int) -> NDArray[np.uint8] | None:
    """Decode a plain JPEG, uint8 of shape HWC; None if Pillow has to look at it."""
    if not data.startswith(jpeg.MAGIC):
        return None
    frame = jpeg.read_frame(data)
    if frame is None:
        return None
    _check_pixels(frame.width, frame.height, max_pixels)
    _check_scans(data, frame.width, frame.height)
    side = decoding.shorter_side
    return jpeg.decode(data, frame, *((side, side) if side else decoding.size))


def _check_scans(data: bytes, width: int, height: int) -> None:
    # Each passes over the whole image: repeated thousands of times in a few kilobytes, they would occupy a thread
    # for minutes.
    most = min(MOST_JPEG_SCANS, MOST_SCANNED_PIXELS // max(1, width * height))
    # This never counts too few; but a photograph's film may follow it, in which they are met by chance.
    if data.count(jpeg.SCAN) <= most:
        return
    scans = jpeg.count_scans(data)
    if scans > most:
        raise UndecodableImage(f"the JPEG has {scans} scans; of its size at most {most} are allowed: save it anew")


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if max(width, height) > LONGEST_SIDE:
        raise ImageTooLarge(f"the image has {width} x {height} pixels; at most {LONGEST_SIDE} a side are allowed")
    if width * height > max_pixels:
        raise ImageTooLarge(f"the image has {width} x {height} pixels; at most {max_pixels} are allowed")


def _open(data: bytes, max_pixels: int) -> Image.Image:
    check_structure(data, max_pixels)
    try:
        image = _begin(data)
    except (MemoryError, UndecodableImage):
        raise
    except Exception as error:  # As above: reading a hostile header may raise anything.
        known = "JPEG, PNG, WebP, BMP, GIF or TIFF"
        raise UndecodableImage(f"the {len(data)} bytes are not a {known} image") from error
    _check_pixels(image.width, image.height, max_pixels)
    # What comes to nothing is gone through all the same, if there is room for it.
    largest = LARGEST_RUNS_BYTES + 4 * image.width * image.height
    coded = any(tile[0] == RUN_LENGTH_DECODER for tile in getattr(image, "tile", ()))
    if coded and len(data) > largest:
        raise UndecodableImage("the BMP has far more runs than pixels; save it anew")
    if coded and image.width * image.height > MOST_RUN_LENGTH_PIXELS:
        raise ImageTooLarge(
            f"the BMP has {image.width} x {image.height} pixels; coded in runs, at most {MOST_RUN_LENGTH_PIXELS} "
            "are allowed: save it otherwise"
        )
    return image


def _begin(data: bytes) -> Image.Image:
    if not data.startswith(jpeg.MAGIC):
        return Image.open(BytesIO(data), formats=FORMATS)
    jpeg.count_scans(data)  # Raises if Pillow would be kept busy.
    # Not as one of several pictures: of those Pillow reads one directory more.
    image = JpegImageFile(BytesIO(data))
    _check_scans(data, image.width, image.height)
    return image


def _turn(image: Image.Image, exif: bool) -> Image.Transpose | None:
    """Return how an image that was opened is to be turned once it is loaded."""
    try:
        tags = image.getexif()
        turn = UPRIGHT_BY.get(tags.get(ExifTags.Base.Orientation, 1))
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            return turn if exif else None
        # Pillow turns these itself as it loads them, and would read other directories too, that nobody asks for.
        for tag in TiffTags.TAGS_V2_GROUPS:
            tags.pop(tag, None)
    except Exception:  # A person's viewer ignores a damaged orientation tag, and shows the image as it is.
        return None
    return None if exif or turn is None else BACK.get(turn, turn)


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _of_16_bits(image)
    if image.mode in ("I", "F"):
        raise UndecodableImage("the image has 32 bits a pixel, with no defined brightness; save it with 8 or 16")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image in bands, each with its place from above: for each of them the interpreter's lock is kept."""
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _on_white(image: Image.Image) -> Image.Image:
    seen = Image.new("RGB", image.size)
    for top, band in _bands(image):
        white = Image.new("RGBA", band.size, "white")
        seen.paste(Image.alpha_composite(white, band.convert("RGBA")).convert("RGB"), (0, top))
    return seen


def _of_16_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255 and would turn all but the darkest greys white.
    seen, clear = Image.new("L", image.size), image.info.get("transparency")
    for top, band in _bands(image):
        grey_16 = np.array(band, dtype=np.uint32)
        if isinstance(clear, int):
            grey_16[grey_16 == clear] = 65535
        seen.paste(Image.fromarray(((grey_16 * 255 + 32767) // 65535).astype(np.uint8)), (0, top))
    return seen


def _fit(image: Image.Image, decoding: ImageDecoding) -> Image.Image:
    height, width = decoding.size
    interpolation = _INTERPOLATION[decoding.interpolation]
    if decoding.shorter_side is None:
        return image if image.size == (width, height) else image.resize((width, height), interpolation)
    scale = decoding.shorter_side / min(image.size)
    # Only the part that the crop keeps is resampled: a 1 x 100,000 strip must not become a huge image.
    box_width, box_height = min(width / scale, image.width), min(height / scale, image.height)
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    return image.resize((width, height), interpolation, box=(left, top, left + box_width, top + box_height))

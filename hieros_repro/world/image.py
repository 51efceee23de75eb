"""What the image halves of encoders and decoders must agree on."""

from hieros_repro.records import Space, UserError

SMALLEST = 4  # the side of the map that an image is brought down to


def halvings(name: str, space: Space) -> int:
    """How often an image is halved until its side is 4."""
    height, width, _ = space.shape
    count = (height // SMALLEST).bit_length() - 1
    if height != width or count < 1 or height != SMALLEST * 2**count:
        raise UserError(
            f"the images {name!r} are {height}x{width}: a world model takes square ones with a side of 4 * 2^n "
            "(8, 16, 32, 64, ...), as by env.resize=[64,64], or env.size=64 where the environment has it"
        )
    return count


def of_director(name: str, space: Space) -> None:
    """Refuses images that Director's layers without padding do not fit."""
    height, width, _ = space.shape
    if (height, width) != (64, 64):
        raise UserError(
            f"the images {name!r} are {height}x{width}: padding=valid takes 64x64 only (env.resize=[64,64], or env.size=64 "
            "where the environment has it); padding=same takes every side of 4 * 2^n"
        )


def doubled(depth: int, count: int) -> list[int]:
    """Channels after each of `count` strided convolutions: depth, 2 depth, 4 depth, ..."""
    return [depth * 2**i for i in range(count)]


def widened(depth: int, count: int) -> list[int]:
    """Channels after each of `count` pooled convolutions: depth times the last of ..., 2, 2, 2, 3, 4, 4."""
    return [depth * times for times in [*[2] * count, 3, 4, 4][-count:]]

"""The public names of this folder and the modules that hold them."""

from .files import (
    chunk_count as chunk_count,
    is_store as is_store,
    missing_chunks as missing_chunks,
    missing_coordinates as missing_coordinates,
    recipe as recipe,
)
from .inspection import Contents as Contents, inspect as inspect
from .opening import member as member, open as open, open_dataset as open_dataset
from .saving import save as save, save_together as save_together
from .verifying import verify as verify

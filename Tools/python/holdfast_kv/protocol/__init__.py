"""The engine's protocol: frames as bytes and as values.

Every byte is described in ``Sources/KVAgent/KVAgent.docc/EngineProtocol.md``; both sides check the same vectors
(``Tests/KVAgentTests/engine-protocol-vectors.json``). Nothing here does I/O. Durations are integer nanoseconds.

``fields`` has the numbers and what bodies are made of, ``chains`` what frames name, ``session``, ``blocks`` and ``loans``
the frames themselves, ``frames`` their way to bytes and back.
"""

# "X as X": what this package gives out, said once (PEP 484).
from .blocks import (
    Cancel as Cancel,
)
from .blocks import (
    Cancelled as Cancelled,
)
from .blocks import (
    Finished as Finished,
)
from .blocks import (
    Found as Found,
)
from .blocks import (
    Load as Load,
)
from .blocks import (
    Loaded as Loaded,
)
from .blocks import (
    LookUp as LookUp,
)
from .blocks import (
    Pin as Pin,
)
from .blocks import (
    Pinned as Pinned,
)
from .blocks import (
    Prefetch as Prefetch,
)
from .blocks import (
    Save as Save,
)
from .blocks import (
    Saved as Saved,
)
from .blocks import (
    Touch as Touch,
)
from .blocks import (
    Unpin as Unpin,
)
from .chains import (
    NO_LOAN as NO_LOAN,
)
from .chains import (
    AnyChain as AnyChain,
)
from .chains import (
    Chain as Chain,
)
from .chains import (
    Loan as Loan,
)
from .chains import (
    Name as Name,
)
from .chains import (
    Places as Places,
)
from .chains import (
    chain_head as chain_head,
)
from .fields import (
    BODY_BYTES_MAX as BODY_BYTES_MAX,
)
from .fields import (
    HEADER_BYTES as HEADER_BYTES,
)
from .fields import (
    KEY_BYTES as KEY_BYTES,
)
from .fields import (
    KEYS_MAX as KEYS_MAX,
)
from .fields import (
    SEGMENTS_MAX as SEGMENTS_MAX,
)
from .fields import (
    SLICES_MAX as SLICES_MAX,
)
from .fields import (
    VERSION as VERSION,
)
from .fields import (
    Kind as Kind,
)
from .fields import (
    Ownership as Ownership,
)
from .fields import (
    PinOutcome as PinOutcome,
)
from .fields import (
    ProtocolError as ProtocolError,
)
from .fields import (
    Refusal as Refusal,
)
from .fields import (
    StopReason as StopReason,
)
from .frames import (
    Frame as Frame,
)
from .frames import (
    Splitter as Splitter,
)
from .frames import (
    body_bytes as body_bytes,
)
from .frames import (
    decode as decode,
)
from .frames import (
    encode as encode,
)
from .loans import (
    Arena as Arena,
)
from .loans import (
    ArenaOpened as ArenaOpened,
)
from .loans import (
    Commit as Commit,
)
from .loans import (
    Committed as Committed,
)
from .loans import (
    Release as Release,
)
from .loans import (
    Released as Released,
)
from .loans import (
    Reserve as Reserve,
)
from .loans import (
    Reserved as Reserved,
)
from .loans import (
    Take as Take,
)
from .loans import (
    Taken as Taken,
)
from .session import (
    Changed as Changed,
)
from .session import (
    Farewell as Farewell,
)
from .session import (
    Goodbye as Goodbye,
)
from .session import (
    Hello as Hello,
)
from .session import (
    Ping as Ping,
)
from .session import (
    Pong as Pong,
)
from .session import (
    Refused as Refused,
)
from .session import (
    RegionAdd as RegionAdd,
)
from .session import (
    RegionAdded as RegionAdded,
)
from .session import (
    RegionDrop as RegionDrop,
)
from .session import (
    RegionDropped as RegionDropped,
)
from .session import (
    Statistics as Statistics,
)
from .session import (
    Stats as Stats,
)
from .session import (
    Subscribe as Subscribe,
)
from .session import (
    Welcome as Welcome,
)

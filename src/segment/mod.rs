//! The bytes of an object and its name: header, record batches as they came, footer that says what they are. It
//! promises that an object describes itself, so that a lost journal can be repaired from the bucket (H2). It does no
//! I/O. Specified in `docs/formats/object.md`; tests beside each file.
mod name;
mod object;
mod run;

pub use name::{COMPACTED_PREFIX, DATA_PREFIX, ObjectKind, ObjectName};
pub use object::{FooterRun, HEADER_BYTES, ObjectError, ObjectHeader, ObjectWriter, read_footer, renamed};
pub use run::{Located, RunBounds, check_run, locate};

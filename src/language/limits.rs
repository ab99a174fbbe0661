//! `OpenFGA`'s limits on models, tuples and requests: what it is configured with by default, and what its messages are
//! declared to hold. A model or tuple within them can be moved to an `OpenFGA` server.

/// Most types of a model.
pub const TYPES_MAX: usize = 100;
/// Largest model, in bytes as on the wire, its id among them.
pub const MODEL_BYTES_MAX: usize = 256 * 1024;
/// Most conditions of a model.
pub const CONDITIONS_MAX: usize = 25;
/// Most parameters of a condition.
pub const PARAMETERS_MAX: usize = 25;
/// Longest expression of a condition, in bytes.
pub const CONDITION_EXPRESSION_BYTES_MAX: usize = 512;
/// Longest name of a module, in characters.
pub const MODULE_CHARS_MAX: usize = 50;
/// Longest name of a module's file, in characters, without its `.fga`.
pub const MODULE_FILE_CHARS_MAX: usize = 100;

/// Longest type name, in characters.
pub const TYPE_CHARS_MAX: usize = 254;
/// Longest name of a relation, condition or parameter, in characters.
pub const RELATION_CHARS_MAX: usize = 50;
/// Longest `type:id`, in characters.
pub const OBJECT_CHARS_MAX: usize = 256;
/// Longest user (`type:id`, `type:*` or `type:id#relation`), in bytes.
pub const USER_BYTES_MAX: usize = 512;
/// Longest context of a tuple that is stored, in bytes as on the wire.
pub const CONTEXT_BYTES_MAX: usize = 32 * 1024;
/// Shortest name of a tuple's condition, in characters. (A model may have conditions with shorter names; no tuple can name
/// them.)
pub const TUPLE_CONDITION_CHARS_MIN: usize = 2;

/// Most tuples of one write.
pub const TUPLES_PER_WRITE_MAX: usize = 100;
/// Most contextual tuples of one request.
pub const CONTEXTUAL_TUPLES_MAX: usize = 100;
/// Most assertions of a model.
pub const ASSERTIONS_MAX: usize = 100;
/// Most contextual tuples of an assertion.
pub const CONTEXTUAL_TUPLES_OF_ASSERTION_MAX: usize = 20;
/// Most bytes of all assertions of a model.
pub const ASSERTIONS_BYTES_MAX: usize = 64_000;

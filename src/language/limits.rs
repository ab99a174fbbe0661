//! `OpenFGA`'s limits on models, tuples and requests: the defaults of its configuration, and the bounds that its
//! messages declare. A model or tuple within them can be moved to an `OpenFGA` server.

/// The number of types that a model may have.
pub const TYPES_MAX: usize = 100;
/// The size of a model in bytes as encoded on the wire, including its id.
pub const MODEL_BYTES_MAX: usize = 256 * 1024;
/// The number of conditions that a model may have.
pub const CONDITIONS_MAX: usize = 25;
/// The number of parameters that a condition may have.
pub const PARAMETERS_MAX: usize = 25;
/// The length of a condition's expression, in bytes.
pub const CONDITION_EXPRESSION_BYTES_MAX: usize = 512;
/// The length of a module's name, in characters.
pub const MODULE_CHARS_MAX: usize = 50;
/// The length of the name of a module's file, in characters, without its `.fga`.
pub const MODULE_FILE_CHARS_MAX: usize = 100;

/// The length of a type's name, in characters.
pub const TYPE_CHARS_MAX: usize = 254;
/// The length of the name of a relation, condition or parameter, in characters.
pub const RELATION_CHARS_MAX: usize = 50;
/// The length of an object (`type:id`), in characters.
pub const OBJECT_CHARS_MAX: usize = 256;
/// The length of a user (`type:id`, `type:*` or `type:id#relation`), in bytes.
pub const USER_BYTES_MAX: usize = 512;
/// The size of a stored tuple's context, in bytes as encoded on the wire.
pub const CONTEXT_BYTES_MAX: usize = 32 * 1024;
/// The shortest name of a condition that a tuple can name, in characters. A model may define conditions with shorter
/// names, but no tuple can name them.
pub const TUPLE_CONDITION_CHARS_MIN: usize = 2;

/// The number of tuples in one write.
pub const TUPLES_PER_WRITE_MAX: usize = 100;
/// The number of contextual tuples in one request.
pub const CONTEXTUAL_TUPLES_MAX: usize = 100;
/// The number of assertions of a model.
pub const ASSERTIONS_MAX: usize = 100;
/// The number of contextual tuples in an assertion.
pub const CONTEXTUAL_TUPLES_OF_ASSERTION_MAX: usize = 20;
/// The size of all assertions of a model together, in bytes.
pub const ASSERTIONS_BYTES_MAX: usize = 64_000;

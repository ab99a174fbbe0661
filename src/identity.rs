//! Who is asking: from a verified access token, or a name that is believed, to the [`Principal`] whose rights bound the
//! answer.
//!
//! INVARIANT (pure decisions): everything from a token's bytes and a key to a principal does no I/O and reads no clock; the
//! time is handed in. Only `issuer` talks to the network.

pub mod principal;
pub mod scope;
pub mod subject;

pub use principal::{Actor, Principal, TokenFacts};
pub use scope::{Scope, Scopes};

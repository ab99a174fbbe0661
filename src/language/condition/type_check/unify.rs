//! Decides whether a value of one type may stand where another type is expected, and what follows for types that are
//! not known yet.

use super::Kind;

/// The number of steps through types for one expression. A type can be as large as two to the power of its nesting.
const STEPS_MAX: usize = 1_000_000;

/// The types that variables are bound to.
#[derive(Default)]
pub(super) struct Unifier {
    /// For each variable, the type that it is bound to.
    bound: Vec<Option<Kind>>,
    /// The variables that were bound, with their types from before, so that an attempt can be undone.
    changes: Vec<(u32, Option<Kind>)>,
    steps: usize,
}

impl Unifier {
    /// Makes a new variable.
    pub(super) fn variable(&mut self) -> Kind {
        let number = u32::try_from(self.bound.len()).unwrap_or(u32::MAX);
        self.bound.push(None);
        Kind::Variable(number)
    }

    fn bound(&self, variable: u32) -> Option<&Kind> {
        self.bound.get(usize::try_from(variable).ok()?)?.as_ref()
    }

    fn bind(&mut self, variable: u32, kind: Option<Kind>) -> Option<Kind> {
        let place = self.bound.get_mut(usize::try_from(variable).ok()?)?;
        std::mem::replace(place, kind)
    }

    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps > STEPS_MAX { Err("its types are too large".to_owned()) } else { Ok(()) }
    }

    /// Returns whether each first type may stand where its second type is expected. Bindings are kept only if all may.
    pub(super) fn assignable(&mut self, pairs: &[(&Kind, &Kind)]) -> Result<bool, String> {
        let before = self.changes.len();
        for (from, to) in pairs {
            if !self.fits(from, to)? {
                for (variable, known) in self.changes.split_off(before).into_iter().rev() {
                    self.bind(variable, known);
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether `from` fits `to`. The recursion is bounded because the depth of a type follows that of the
    /// expression.
    fn fits(&mut self, from: &Kind, to: &Kind) -> Result<bool, String> {
        self.step()?;
        if let Kind::Variable(variable) = to {
            match self.stands_for(from, *variable)? {
                Substitution::Fits => return Ok(true),
                Substitution::Differs => return Ok(false),
                Substitution::WithinItself => {}
            }
        }
        if let Kind::Variable(variable) = from {
            return Ok(matches!(self.stands_for(to, *variable)?, Substitution::Fits));
        }
        Ok(match (from, to) {
            (Kind::Any | Kind::Dyn, _)
            | (_, Kind::Any | Kind::Dyn)
            // CEL counts these types as messages, and a message may be null.
            | (Kind::Null, Kind::Duration | Kind::Timestamp | Kind::IpAddress)
            | (Kind::Duration | Kind::Timestamp | Kind::IpAddress, Kind::Null) => true,
            (Kind::List(a), Kind::List(b)) => self.fits(a, b)?,
            (Kind::Map(a_key, a), Kind::Map(b_key, b)) => self.fits(a_key, b_key)? && self.fits(a, b)?,
            (a, b) => a == b,
        })
    }

    /// Decides whether a variable can be `kind`. It becomes that type, or the more general one of that type and its
    /// own.
    fn stands_for(&mut self, kind: &Kind, variable: u32) -> Result<Substitution, String> {
        if *kind == Kind::Variable(variable) {
            return Ok(Substitution::Fits);
        }
        let Some(known) = self.bound(variable).cloned() else {
            if self.is_within(variable, kind)? {
                return Ok(Substitution::WithinItself);
            }
            self.change(variable, kind.clone());
            return Ok(Substitution::Fits);
        };
        if known == *kind {
            return Ok(Substitution::Fits);
        }
        if !self.fits(kind, &known)? {
            return Ok(Substitution::Differs);
        }
        let general = if is_less_specific(kind, &known) { kind.clone() } else { known };
        if !self.is_within(variable, &general)? {
            self.change(variable, general);
        }
        Ok(Substitution::Fits)
    }

    fn change(&mut self, variable: u32, kind: Kind) {
        let before = self.bind(variable, Some(kind));
        self.changes.push((variable, before));
    }

    fn is_within(&mut self, variable: u32, kind: &Kind) -> Result<bool, String> {
        self.step()?;
        match kind {
            Kind::Variable(other) if *other == variable => Ok(true),
            Kind::Variable(other) => match self.bound(*other).cloned() {
                Some(known) => self.is_within(variable, &known),
                None => Ok(false),
            },
            Kind::List(element) => self.is_within(variable, element),
            Kind::Map(key, element) => Ok(self.is_within(variable, key)? || self.is_within(variable, element)?),
            Kind::Any
            | Kind::Dyn
            | Kind::Bool
            | Kind::Int
            | Kind::Uint
            | Kind::Double
            | Kind::String
            | Kind::Bytes
            | Kind::Null
            | Kind::Duration
            | Kind::Timestamp
            | Kind::IpAddress
            | Kind::Type => Ok(false),
        }
    }

    /// Replaces the variables in a type by the types that they are bound to.
    pub(super) fn substitute(&mut self, kind: &Kind) -> Result<Kind, String> {
        self.step()?;
        Ok(match kind {
            Kind::Variable(variable) => match self.bound(*variable).cloned() {
                Some(known) => self.substitute(&known)?,
                None => kind.clone(),
            },
            Kind::List(element) => Kind::List(Box::new(self.substitute(element)?)),
            Kind::Map(key, element) => Kind::Map(Box::new(self.substitute(key)?), Box::new(self.substitute(element)?)),
            Kind::Any
            | Kind::Dyn
            | Kind::Bool
            | Kind::Int
            | Kind::Uint
            | Kind::Double
            | Kind::String
            | Kind::Bytes
            | Kind::Null
            | Kind::Duration
            | Kind::Timestamp
            | Kind::IpAddress
            | Kind::Type => kind.clone(),
        })
    }

    /// Like [`Unifier::substitute`], but a type that is still unknown becomes `dyn`.
    pub(super) fn known(&mut self, kind: &Kind) -> Result<Kind, String> {
        let kind = self.substitute(kind)?;
        Ok(if let Kind::Variable(_) = kind { Kind::Dyn } else { kind })
    }
}

enum Substitution {
    Fits,
    Differs,
    /// The variable occurs in the type, so it cannot be that type.
    WithinItself,
}

/// Returns whether, of two types that fit each other, the first says no more than the second.
pub(super) fn is_less_specific(first: &Kind, second: &Kind) -> bool {
    match (first, second) {
        (Kind::Any | Kind::Dyn | Kind::Variable(_), _) => true,
        (_, Kind::Any | Kind::Dyn | Kind::Variable(_)) => false,
        (Kind::List(a), Kind::List(b)) => is_less_specific(a, b),
        (Kind::Map(a_key, a), Kind::Map(b_key, b)) => is_less_specific(a_key, b_key) && is_less_specific(a, b),
        (a, b) => a == b,
    }
}

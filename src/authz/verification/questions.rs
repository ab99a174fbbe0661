//! Questions that outlive the process: the one by which the copy lost its trust, those whose difference is being
//! confirmed, and those that the copy denied wrongly. After a restart they are asked before all others, so a restart
//! does not erase a fault that was seen.
//!
//! They name users and objects, and hold what their requests added. They are stored only beside the copy, which names
//! users and objects as well.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::sampler::SampledQuestion;
use super::stratum::Stratum;
use crate::authz::Check;
use crate::authz::decider::Question;
use crate::engine::Contextual;
use crate::language::{Object, Relation, RelationshipTuple, TupleCondition};

/// The most bytes that a request may add to a question that is kept, so that the file stays small.
const CONTEXTUAL_BYTES_MAX: usize = 64 << 10;

/// A question as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptQuestion {
    /// Whether the copy lost its trust by this question, so that the next copy must answer it correctly.
    pub(super) is_evidence: bool,
    stratum: Stratum,
    user: String,
    relation: String,
    object: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tuples: Vec<KeptTuple>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    context: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptTuple {
    user: String,
    relation: String,
    object: String,
    /// The name of the condition and its context, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    condition: Option<(String, String)>,
}

impl KeptQuestion {
    /// Makes the stored form of a question; `None` if it would be too large.
    pub(super) fn of(asked: &SampledQuestion) -> Option<Self> {
        let Question { check, contextual } = &asked.question;
        if contextual.wire_bytes() > CONTEXTUAL_BYTES_MAX {
            return None;
        }
        let tuple = |tuple: &RelationshipTuple| KeptTuple {
            user: tuple.user.to_string(),
            relation: tuple.relation.to_string(),
            object: tuple.object.to_string(),
            condition: tuple.condition.as_ref().map(|c| (c.name().to_owned(), c.context_json().to_owned())),
        };
        Some(Self {
            is_evidence: false,
            stratum: asked.stratum.clone(),
            user: check.user.to_string(),
            relation: check.relation.to_string(),
            object: check.object.to_string(),
            tuples: contextual.tuples.iter().map(tuple).collect(),
            context: contextual.context.clone(),
        })
    }

    /// Marks the question as the one by which the copy lost its trust.
    pub(super) fn into_evidence(self) -> Self {
        Self { is_evidence: true, ..self }
    }

    /// Reads the question back, as one that nobody has answered yet; `None` if it is malformed.
    pub(super) fn asked(self) -> Option<SampledQuestion> {
        let check = Check {
            user: Object::parse(&self.user).ok()?,
            relation: Relation::parse(&self.relation).ok()?,
            object: Object::parse(&self.object).ok()?,
        };
        let tuple = |kept: KeptTuple| {
            let tuple = RelationshipTuple::parse(&kept.user, &kept.relation, &kept.object).ok()?;
            let Some((name, context)) = kept.condition else { return Some(tuple) };
            Some(tuple.with_condition(TupleCondition::parse(&name, &context).ok()?))
        };
        let tuples = self.tuples.into_iter().map(tuple).collect::<Option<Vec<_>>>()?;
        let contextual = Arc::new(Contextual { tuples, context: self.context });
        let question = Question { check, contextual };
        Some(SampledQuestion { stratum: self.stratum, question, answered: None, at: Instant::now(), trace_id: None })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::decider::doubles::question;

    #[tokio::test]
    async fn a_question_is_the_same_after_a_restart() {
        let tuple = |user: &str| RelationshipTuple::parse(user, "member", "group:a").expect("a tuple");
        let condition = TupleCondition::parse("office", r#"{"hours":[9,17.5]}"#).expect("a condition");
        let Value::Object(context) = json!({ "now": "2024-05-06T10:00:00+09:00", "n": { "m": [1, 2.0, null] } }) else {
            panic!("an object")
        };
        let full = Contextual {
            tuples: vec![tuple("user:anne"), tuple("group:b#member"), tuple("user:*").with_condition(condition)],
            context,
        };
        for (name, contextual) in [("alone", Contextual::default()), ("with all that a request may add", full)] {
            let question = Question { contextual: Arc::new(contextual), ..question("user:anne", 7) };
            let stratum = Stratum::of(&question.check, &question.contextual, vec!["office".to_owned()]);
            let asked = SampledQuestion { stratum, question, answered: None, at: Instant::now(), trace_id: None };
            let kept = KeptQuestion::of(&asked).expect("small").into_evidence();
            let text = serde_json::to_string(&kept).expect("JSON");
            let read: KeptQuestion = serde_json::from_str(&text).expect("as it was written");
            assert_eq!(read, kept, "{name}");
            let again = read.asked().expect("a question");
            let parts = |asked: &SampledQuestion| {
                let Question { check, contextual } = asked.question.clone();
                (asked.stratum.clone(), check, contextual)
            };
            assert_eq!(parts(&again), parts(&asked), "{name}");
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_left_out() {
        let tuple =
            |n: usize| RelationshipTuple::parse("user:anne", "member", &format!("group:{n:0>200}")).expect("a tuple");
        let contextual = Contextual { tuples: (0..400).map(tuple).collect(), ..Contextual::default() };
        let question = Question { contextual: Arc::new(contextual), ..question("user:anne", 7) };
        let stratum = Stratum::of(&question.check, &question.contextual, Vec::new());
        let asked = SampledQuestion { stratum, question, answered: None, at: Instant::now(), trace_id: None };
        assert_eq!(KeptQuestion::of(&asked), None);
    }
}

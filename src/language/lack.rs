//! Finds names that a model does not have. A check of such a relation is *denied*, so nobody ever sees what the object
//! guards. Most likely the name is misspelt.

use super::model::AuthorizationModel;
use super::tuple::Relation;

/// The similarity from which one name is suggested in place of another.
const LIKENESS_MIN: f64 = 0.75;

impl AuthorizationModel {
    /// Returns a sentence about the type or the relation that the model lacks, or `None` if it has both. Without a
    /// type, it looks for the relation in all types.
    #[must_use]
    pub fn lack(&self, type_name: Option<&str>, relation: Option<&Relation>) -> Option<String> {
        let Some(type_name) = type_name else { return self.lack_in_all(relation?.as_str()) };
        let Some(definition) = self.types.iter().find(|definition| definition.name == type_name) else {
            let nearest = suggestion(type_name, self.types.iter().map(|definition| definition.name.as_str()));
            return Some(format!("the authorization model has no type `{type_name}`{nearest}"));
        };
        let relation = relation?.as_str();
        if definition.relation(relation).is_some() {
            return None;
        }
        let nearest = suggestion(relation, definition.relations.iter().map(|relation| relation.name.as_str()));
        Some(format!("type `{type_name}` of the authorization model has no relation `{relation}`{nearest}"))
    }

    fn lack_in_all(&self, relation: &str) -> Option<String> {
        let known = self.types.iter().flat_map(|definition| &definition.relations).map(|known| known.name.as_str());
        if known.clone().any(|known| known == relation) {
            return None;
        }
        let nearest = suggestion(relation, known);
        Some(format!("no type of the authorization model has the relation `{relation}`{nearest}"))
    }
}

fn suggestion<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let nearest = known.map(|known| (strsim::jaro_winkler(known, name), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest.filter(|(likeness, _)| *likeness > LIKENESS_MIN) {
        Some((_, known)) => format!("; did you mean `{known}`?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use crate::language::{Relation, dsl};

    #[test]
    fn a_name_that_is_not_there_is_named_with_the_nearest() {
        let text = "model\n  schema 1.1\ntype user\ntype folder\n  relations\n    define can_read: [user]\n";
        let model = dsl::parse(text).expect("a model").model;
        let rows = [
            (Some("folder"), Some("can_read"), None),
            (Some("folder"), None, None),
            (Some("user"), None, None),
            (
                Some("folder"),
                Some("can_raed"),
                Some("type `folder` of the authorization model has no relation `can_raed`; did you mean `can_read`?"),
            ),
            (Some("user"), Some("can_read"), Some("type `user` of the authorization model has no relation `can_read`")),
            (Some("foldr"), None, Some("the authorization model has no type `foldr`; did you mean `folder`?")),
            (Some("page"), Some("can_read"), Some("the authorization model has no type `page`")),
            (None, Some("can_read"), None),
            (None, None, None),
            (
                None,
                Some("can_raed"),
                Some("no type of the authorization model has the relation `can_raed`; did you mean `can_read`?"),
            ),
            (None, Some("owner"), Some("no type of the authorization model has the relation `owner`")),
        ];
        for (type_name, relation, expected) in rows {
            let relation = relation.map(|relation| Relation::parse(relation).expect("a relation"));
            assert_eq!(model.lack(type_name, relation.as_ref()).as_deref(), expected, "{type_name:?} {relation:?}");
        }
    }
}

//! The outlets of a Kafka sink: topic and key, and for a transactional one the assignment whose offsets its batches have.
//!
//! Invariant: the number of an outlet is given to another one only when its assignment is over, so that no batch of the one
//! is taken for the other's. So there are as many outlets as topics, keys and partitions that are read at once.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::kafka::assigned::Assigned;

/// Where messages go, and for whose offsets they count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Outlet {
    pub(super) topic: String,
    pub(super) key: Option<String>,
    pub(super) assigned: Option<Whose>,
}

/// An assignment; two are the same where they are one.
#[derive(Clone, Debug)]
pub(super) struct Whose(pub(super) Arc<Assigned>);

impl PartialEq for Whose {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Whose {}

impl Outlet {
    /// The topic, and behind a space the key if there is one. No topic's name holds a space.
    pub(super) fn name(&self) -> String {
        match &self.key {
            Some(key) => format!("{} {key}", self.topic),
            None => self.topic.clone(),
        }
    }

    /// The outlet with a name, of no assignment.
    pub(super) fn named(name: &str) -> Self {
        let (topic, key) = name.split_once(' ').map_or((name, None), |(topic, key)| (topic, Some(key)));
        Self { topic: topic.to_owned(), key: key.map(str::to_owned), assigned: None }
    }
}

impl Hash for Whose {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// The outlets, by number and by what they are.
#[derive(Default)]
pub(super) struct Outlets {
    numbers: HashMap<Arc<Outlet>, u32>,
    all: Vec<Arc<Outlet>>,
}

impl Outlets {
    /// The number of an outlet.
    pub(super) fn number(&mut self, outlet: Outlet) -> u32 {
        if let Some(number) = self.numbers.get(&outlet) {
            return *number;
        }
        let outlet = Arc::new(outlet);
        if let Some(Whose(assigned)) = &outlet.assigned {
            assigned.take(true);
        }
        let is_over = |outlet: &Arc<Outlet>| outlet.assigned.as_ref().is_some_and(|whose| whose.0.is_over());
        let at = match self.all.iter().position(is_over) {
            Some(at) => {
                let over = std::mem::replace(&mut self.all[at], Arc::clone(&outlet));
                self.numbers.remove(&over);
                at
            }
            None => {
                self.all.push(Arc::clone(&outlet));
                self.all.len() - 1
            }
        };
        let number = u32::try_from(at).expect("there are far fewer topics than 2^32");
        self.numbers.insert(outlet, number);
        number
    }

    /// The outlet of a number.
    pub(super) fn get(&self, number: u32) -> Option<&Arc<Outlet>> {
        self.all.get(number as usize)
    }
}

impl Drop for Outlets {
    fn drop(&mut self) {
        // The sources commit for themselves again.
        self.all.iter().filter_map(|outlet| outlet.assigned.as_ref()).for_each(|whose| whose.0.take(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_topic_and_key() {
        for (topic, key) in [("t", None), ("t", Some("")), ("a.b_c-d", Some(" two words\n"))] {
            let outlet = Outlet { topic: topic.into(), key: key.map(str::to_owned), assigned: None };
            assert_eq!(Outlet::named(&outlet.name()), outlet);
        }
    }

    #[test]
    fn a_number_is_given_again_when_its_assignment_is_over_and_not_before() {
        use crate::kafka::assigned::Membership;
        let mut outlets = Outlets::default();
        let assigned = || Assigned::new("t".into(), 0, Membership::new("g".into()));
        let outlet = |whose: &Arc<Assigned>| Outlet {
            topic: "t".into(),
            key: None,
            assigned: Some(Whose(Arc::clone(whose))),
        };
        let [one, two, three] = [assigned(), assigned(), assigned()];
        assert_eq!((outlets.number(outlet(&one)), outlets.number(outlet(&two))), (0, 1));
        one.lose();
        assert_eq!(outlets.number(outlet(&one)), 0, "records of it may still be out");
        one.end();
        assert_eq!((outlets.number(outlet(&three)), outlets.number(outlet(&two))), (0, 1));
        assert_eq!(outlets.numbers.len(), 2);
        assert!(three.is_taken());
        drop(outlets);
        assert!(!three.is_taken() && !two.is_taken());
    }
}

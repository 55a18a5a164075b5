//! The four people of the demonstration, and whom they work for.

/// One person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// The subject of their tokens.
    pub name: &'static str,
    /// Their name for people.
    pub full_name: &'static str,
    /// The groups that the authorization server vouches for.
    pub groups: &'static [&'static str],
}

/// Everybody.
pub const PEOPLE: [Person; 4] = [
    Person { name: "alice", full_name: "Alice Ashe", groups: &["acme", "shared"] },
    Person { name: "bob", full_name: "Bob Birch", groups: &["globex", "shared"] },
    Person { name: "carol", full_name: "Carol Cedar", groups: &["acme", "globex", "shared", "shared-editors"] },
    Person { name: "dave", full_name: "Dave Dogwood", groups: &[] },
];

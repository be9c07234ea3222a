//! Hash collections with a fixed hash, so that the same inputs give the same run in every process.
//!
//! Even so, protocol code never lets the order of a map reach an output; where order matters it uses a `BTreeMap`.
#![allow(clippy::disallowed_types, reason = "the one home of the aliases that everything else uses")]

use rustc_hash::FxBuildHasher;

/// A hash map whose layout depends only on its contents and their order of arrival.
pub type Map<K, V> = std::collections::HashMap<K, V, FxBuildHasher>;

/// A hash set whose layout depends only on its contents and their order of arrival.
pub type Set<K> = std::collections::HashSet<K, FxBuildHasher>;

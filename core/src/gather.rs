//! Requests with many parts: the answers to the parts are gathered until all are there.

use std::collections::BTreeMap;

use crate::{
    message::{ManyEntry, ResponseBody},
    protocol::Token,
};

/// The requests with many parts that are under way at a server.
#[derive(Debug, Default)]
pub struct Gathers {
    last: u64,
    open: BTreeMap<u64, Gather>,
}

#[derive(Debug)]
struct Gather {
    token: Token,
    missing: usize,
    parts: Vec<Option<(ResponseBody, Vec<u8>)>>,
}

impl Gathers {
    /// Begins a request with `parts` parts, at least one.
    pub fn open(&mut self, token: Token, parts: usize) -> u64 {
        self.last += 1;
        self.open.insert(self.last, Gather { token, missing: parts, parts: vec![None; parts] });
        self.last
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Adds the answer to a part; returns the whole answer once it was the last one missing.
    pub fn add(
        &mut self,
        gather: u64,
        index: u32,
        body: &ResponseBody,
        value: &[u8],
    ) -> Option<(Token, ResponseBody, Vec<u8>)> {
        let open = self.open.get_mut(&gather)?;
        let part = open.parts.get_mut(index as usize)?;
        if part.replace((body.clone(), value.to_vec())).is_none() {
            open.missing -= 1;
        }
        if open.missing > 0 {
            return None;
        }
        let Gather { token, parts, .. } = self.open.remove(&gather)?;
        let mut entries = Vec::with_capacity(parts.len());
        let mut values = Vec::new();
        for (body, value) in parts.into_iter().flatten() {
            entries.push(ManyEntry { body, value_bytes: value.len() as u32 });
            values.extend_from_slice(&value);
        }
        Some((token, ResponseBody::Many(entries), values))
    }
}

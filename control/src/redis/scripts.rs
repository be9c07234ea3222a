//! The scripts, one file each: Redis runs a script as one step, with one time.

use redis::Script;

pub(super) struct Scripts {
    pub(super) get: Script,
    pub(super) compare_and_set: Script,
    pub(super) acquire: Script,
    pub(super) renew: Script,
    pub(super) release: Script,
    pub(super) leases: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            get: Script::new(include_str!("get.lua")),
            compare_and_set: Script::new(include_str!("compare_and_set.lua")),
            acquire: Script::new(include_str!("acquire.lua")),
            renew: Script::new(include_str!("renew.lua")),
            release: Script::new(include_str!("release.lua")),
            leases: Script::new(include_str!("leases.lua")),
        }
    }
}

//! The configuration from real files, with variables and flags over them.

use std::path::Path;

use star_core::config::{Config, ConfigError, DirtyReads, Route};
use tempfile::NamedTempFile;

fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
    let file = file(text);
    let loaded = Config::load(Some(file.path()), owned(env).into_iter(), &owned(flags));
    loaded.map_err(|error| error.to_string().replace(&file.path().display().to_string(), "FILE"))
}

fn refusal(text: &str) -> String {
    load(text, &[], &[]).expect_err(text)
}

#[test]
fn the_sample_is_the_defaults_and_names_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config.toml");
    assert_eq!(Config::load(Some(&path), std::iter::empty(), &[]).unwrap(), Config::default());

    let sample: toml::Table = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let keys = |table: &toml::Table| -> Vec<String> {
        let sections = table.iter().map(|(section, content)| (section, content.as_table().unwrap()));
        sections.flat_map(|(section, content)| content.keys().map(move |key| format!("{section}.{key}"))).collect()
    };
    let all = keys(&toml::Table::try_from(Config::default()).unwrap());
    assert!(all.len() > 20, "{all:?}");
    assert_eq!(keys(&sample), all, "the sample names every key");
}

#[test]
fn no_file_and_an_empty_file_mean_the_defaults() {
    assert_eq!(Config::load(None, std::iter::empty(), &[]).unwrap(), Config::default());
    assert_eq!(load("", &[], &[]).unwrap(), Config::default());
    assert_eq!(load("[limits]\n[log]\n", &[], &[]).unwrap(), Config::default());
    Config::default().validate().unwrap();
}

#[test]
fn variables_win_over_the_file_and_flags_over_both() {
    let text = "[log]\nlevel = \"warn\"\n[replication]\nroute = \"chain\"\ndirty_reads = \"leader\"\n";
    let config =
        load(text, &[("STAR_REPLICATION__ROUTE", "fanout"), ("STAR_LOG__LEVEL", "debug")], &[("log.level", "trace")]);
    let config = config.unwrap();
    assert_eq!(config.replication.dirty_reads, DirtyReads::Leader);
    assert_eq!(config.replication.route, Route::Fanout);
    assert_eq!(config.log.level, "trace");
}

#[test]
fn texts_outside_the_file_need_no_quotes() {
    let env = [
        ("STAR_LIMITS__VALUE_BYTES_MAX", "2 MiB"),
        ("STAR_STORE__CAPACITY_BYTES", "4194304"),
        ("STAR_CLUSTER__NAME", "42"),
        ("STAR_CLUSTER__SERVERS", r#"[{name = "x", addr = "127.0.0.1:9000"}]"#),
        ("STAR_CONTROL__LEASE_TTL_MS", "2 s"),
        ("STAR_SERVICE__DIRECTORY", "\"quoted\""),
        ("STAR_CONNECT", "no key: it has no section"),
        ("HOME", "/root"),
    ];
    let config = load("", &env, &[("client.pool_size", "7")]).unwrap();
    assert_eq!(config.limits.value_bytes_max, 2 << 20);
    assert_eq!(config.store.capacity_bytes, 4 << 20);
    assert_eq!(config.cluster.name, "42");
    assert_eq!((config.cluster.servers.len(), config.cluster.servers[0].name.as_str()), (1, "x"));
    assert_eq!(config.control.lease_ttl_ms, 2000);
    assert_eq!(config.service.directory, Path::new("quoted"));
    assert_eq!(config.client_options().pool_size, 7);
}

#[test]
fn errors_say_which_line_which_key_and_what_is_allowed() {
    for (text, parts) in [
        ("[limits]\n\nkey_bytes = 3\n", &["FILE:3: limits.key_bytes: unknown field", "`key_bytes_max`"][..]),
        ("[limit]\nkey_bytes_max = 3\n", &["FILE:2: limit.key_bytes_max: unknown field `limit`", "`limits`"]),
        ("\n[limit]\n", &["FILE:2: limit: unknown field `limit`", "`limits`"]),
        ("key_bytes_max = 3\n", &["FILE:1: key_bytes_max: unknown field", "`limits`"]),
        ("limits = 3\n", &["FILE:1: limits: invalid type"]),
        ("[limits]\nvalue_bytes_max = \"64 MB\"\n", &["FILE:2: limits.value_bytes_max: \"64 MB\" is not", "MiB"]),
        ("[limits]\nvalue_bytes_max = -1\n", &["FILE:2: limits.value_bytes_max: -1 is not", "64 MiB"]),
        ("[control]\nlease_ttl_ms = \"1 fortnight\"\n", &["FILE:2: control.lease_ttl_ms:", "min"]),
        ("[cluster]\nstars = \"many\"\n", &["FILE:2: cluster.stars: invalid type"]),
        ("[replication]\nroute = \"circle\"\n", &["FILE:2: replication.route: unknown variant `circle`", "`fanout`"]),
        ("[log]\nlevel = \"info\"\n[log\n", &["FILE:3: "]),
        ("[log]\nlevel = \"info\"\nlevel = \"info\"\n", &["FILE:3: duplicate key"]),
        ("limits.key_bytes_max = true", &["FILE:1: limits.key_bytes_max: true is not"]),
        (
            "[cluster]\nservers = [{name = \"a\", addr = \"h:1\", port = 3}]",
            &["FILE:2: cluster.servers: unknown field `port`"],
        ),
    ] {
        let error = refusal(text);
        for part in parts {
            assert!(error.contains(part), "{text:?}: {error:?} does not say {part:?}");
        }
    }
    let error = load("", &[("STAR_LIMITS__KEY_BYTES_MAX", "wide")], &[]).unwrap_err();
    assert!(
        error.starts_with("environment variable STAR_LIMITS__KEY_BYTES_MAX: limits.key_bytes_max: \"wide\" is not"),
        "{error}"
    );
    let error = load("", &[("STAR_LIMITS__KEYS", "3\nx = 4")], &[]).unwrap_err();
    assert!(error.contains("limits.keys: unknown field `keys`"), "{error}");
    let error = load("", &[], &[("replication.route", "circle")]).unwrap_err();
    assert!(error.starts_with("command line: replication.route: unknown variant `circle`"), "{error}");
    let error = load("", &[], &[("route", "chain")]).unwrap_err();
    assert!(error.contains("section.key"), "{error}");
    let missing = Config::load(Some(Path::new("/nonexistent/config.toml")), std::iter::empty(), &[]);
    assert!(matches!(missing, Err(ConfigError::Unreadable { .. })));
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    for (text, parts) in [
        (
            "[cluster]\nservers = [{name = \"a\", addr = \"h:1\"}, {name = \"a\", addr = \"h:2\"}]",
            &["FILE:2: cluster.servers: two servers are named \"a\""][..],
        ),
        (
            "[cluster]\nservers = [{name = \"a\", addr = \"h:1\"}, {name = \"b\", addr = \"h:1\"}]",
            &["two servers have the address h:1"],
        ),
        ("[cluster]\nservers = []", &["FILE:2: cluster.servers: a cluster has at least one server"]),
        ("[cluster]\nservers = [{name = \"a\", addr = \"h\"}]", &["not host:port"]),
        ("[cluster]\nname = \"a/b\"", &["FILE:2: cluster.name:"]),
        ("[cluster]\nstars = 0", &["FILE:2: cluster.stars: 0 is not between 1 and 1024"]),
        ("[cluster]\nreplicas = 6", &["FILE:2: cluster.replicas: 6 members", "there are 5 servers"]),
        (
            "[control]\nlease_drift_margin_ms = 301",
            &["FILE:2: control.lease_drift_margin_ms: 301 is not between 2 and 300"],
        ),
        ("[control]\nbackend = \"redis\"\nredis_url = \"localhost\"", &["FILE:3: control.redis_url:", "redis://"]),
        ("[limits]\nbuffer_bytes_max = 1", &["FILE:2: limits.buffer_bytes_max:", "limits.value_bytes_max"]),
        ("[limits]\npartial_bytes_max = \"95 MiB\"", &["FILE:2: limits.partial_bytes_max:", "longest frame"]),
        ("[store]\ncapacity_bytes = \"32 MiB\"", &["FILE:2: store.capacity_bytes:", "limits.value_bytes_max"]),
        ("[log]\nlevel = \"a=b=c\"", &["FILE:2: log.level:", "debug"]),
        // The other side of the same fault: what was not set is named as a default.
        ("[limits]\nvalue_bytes_max = \"1 GiB\"", &["default value: limits.buffer_bytes_max:"]),
    ] {
        let error = refusal(text);
        for part in parts {
            assert!(error.contains(part), "{text:?}: {error:?} does not say {part:?}");
        }
    }
}

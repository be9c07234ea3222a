//! Values on their way in and out of the program: words, files, stdin and stdout, JSON.

use std::{
    fs::{self, File, Metadata},
    io::{self, IsTerminal, Read, Write},
    path::Path,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use star::Object;
use star_core::{Version, store::Encoding};

use crate::{error::CliError, output};

/// Transfers of more bytes than this show progress to whoever looks on.
const PROGRESS_FROM_BYTES: u64 = 4 << 20;
const PIECE_BYTES: usize = 1 << 20;
/// Files from this length on are read into room in the store of a server of this machine, where there is one.
const ROOM_BYTES_MIN: u64 = 64 << 10;

/// The value that a word of the command line stands for: `@file`, `-` for stdin, `@@…` for a word that begins with @,
/// else the word itself. Without a word it comes from stdin.
pub(crate) fn read(word: Option<&str>, bytes_max: u64) -> Result<Bytes, CliError> {
    match word {
        None if io::stdin().is_terminal() => Err(CliError::usage("there is no value")
            .hint("give it as a word, as @FILE, or as - to type it (Ctrl-D ends it): star set KEY VALUE")),
        None | Some("-") => read_all(io::stdin().lock(), None, bytes_max, "stdin"),
        Some(word) => match word.strip_prefix('@') {
            Some(rest) if rest.starts_with('@') => Ok(Bytes::copy_from_slice(rest.as_bytes())),
            Some(path) => read_file(Path::new(path), bytes_max),
            None => Ok(Bytes::copy_from_slice(word.as_bytes())),
        },
    }
}

/// A file that is long enough to be read where its bytes are to stay.
#[derive(Debug)]
pub(crate) struct LargeFile {
    file: File,
    length: usize,
    name: String,
}

/// The file that a word of the command line stands for, if it is one of 64 KiB or more.
pub(crate) fn large_file(word: Option<&str>, bytes_max: u64) -> Result<Option<LargeFile>, CliError> {
    let Some(path) = word.and_then(|word| word.strip_prefix('@')).filter(|path| !path.starts_with('@')) else {
        return Ok(None);
    };
    // Whatever is no such file is read as others are, or refused as they are. A pipe must not be opened twice.
    let is_large = |found: &Metadata| found.is_file() && (ROOM_BYTES_MIN..=bytes_max).contains(&found.len());
    let Some(found) = fs::metadata(path).ok().filter(is_large) else { return Ok(None) };
    let file = File::open(path).map_err(|error| CliError::from(error).context(format!("cannot read {path}")))?;
    Ok(Some(LargeFile { file, length: found.len() as usize, name: path.to_owned() }))
}

impl LargeFile {
    /// Its length in bytes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Reads all of it into a buffer of its length.
    pub(crate) fn read_into(mut self, target: &mut [u8]) -> Result<(), CliError> {
        let failed = |error: io::Error| CliError::from(error).context(format!("cannot read {}", self.name));
        let shown = (self.length as u64 > PROGRESS_FROM_BYTES).then(|| bar(self.length as u64, "reading"));
        for piece in target.chunks_mut(PIECE_BYTES) {
            self.file.read_exact(piece).map_err(failed)?;
            if let Some(bar) = &shown {
                bar.inc(piece.len() as u64);
            }
        }
        if let Some(bar) = shown {
            bar.finish_and_clear();
        }
        if self.file.read(&mut [0]).map_err(failed)? > 0 {
            return Err(CliError::new(format!("{} grew while it was read", self.name)).hint("try again"));
        }
        Ok(())
    }
}

fn read_file(path: &Path, bytes_max: u64) -> Result<Bytes, CliError> {
    let failed = |error: io::Error| CliError::from(error).context(format!("cannot read {}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if found.is_dir() {
        return Err(CliError::usage(format!("{} is a directory", path.display()))
            .hint("`star demo DIR` stores the files of a directory"));
    }
    read_all(file, Some(found.len()), bytes_max, &path.display().to_string())
}

fn read_all(mut input: impl Read, length: Option<u64>, bytes_max: u64, name: &str) -> Result<Bytes, CliError> {
    let too_large = || {
        let limit = output::bytes(bytes_max);
        CliError::new(format!("{name} holds more than {limit}, the most that one object may have"))
            .hint("limits.value_bytes_max in the configuration sets the limit; it must be the same at all servers")
    };
    if length.is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    let bar = length.filter(|length| *length > PROGRESS_FROM_BYTES).map(|length| bar(length, "reading"));
    let mut value = Vec::with_capacity(length.unwrap_or(0) as usize);
    loop {
        let read = input.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut value);
        if read.map_err(|error| CliError::from(error).context(format!("cannot read {name}")))? == 0 {
            break;
        }
        if value.len() as u64 > bytes_max {
            return Err(too_large());
        }
        if let Some(bar) = &bar {
            bar.set_position(value.len() as u64);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(value.into())
}

/// What a JSON text is stored as: a JSON string as its characters, any other value as its text.
pub(crate) fn from_json(text: &[u8]) -> Result<(Bytes, Encoding), CliError> {
    let wrong = |error: serde_json::Error| {
        CliError::usage(format!("the value is not JSON: {error}")).hint("without --json-value it is taken as it is")
    };
    let raw: &RawValue = serde_json::from_slice(text).map_err(wrong)?;
    if raw.get().starts_with('"') {
        let text: String = serde_json::from_str(raw.get()).map_err(wrong)?;
        return Ok((text.into_bytes().into(), Encoding::Raw));
    }
    Ok((Bytes::copy_from_slice(raw.get().as_bytes()), Encoding::Json))
}

/// An object in the form that JSON clients get it in.
#[derive(Debug, Serialize)]
pub(crate) struct JsonObject<'a> {
    status: &'static str,
    key: &'a str,
    /// Raw, so that a stored JSON value comes out as it came in, long numbers too.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_b64: Option<String>,
    version: u64,
}

impl<'a> JsonObject<'a> {
    pub(crate) fn new(key: &'a str, object: &Object) -> Self {
        Self::of_parts(key, &object.value, object.encoding, object.version)
    }

    pub(crate) fn of_parts(key: &'a str, bytes: &[u8], encoding: Encoding, version: Version) -> Self {
        let text = std::str::from_utf8(bytes).ok();
        let value = text.and_then(|text| match encoding {
            Encoding::Json => RawValue::from_string(text.to_owned()).ok(),
            Encoding::Raw => to_raw_value(text).ok(),
        });
        let value_b64 = value.is_none().then(|| STANDARD.encode(bytes));
        Self { status: "OK", key, value, value_b64, version: version.0 }
    }
}

/// Writes a value to a file. An existing file stays as it was if that fails.
pub(crate) fn write_file(path: &Path, value: &[u8]) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::from(error).context(format!("cannot write {}", path.display()));
    if path.exists() && !path.is_file() {
        // A device or a pipe cannot be put in place as a whole.
        let mut file = File::options().write(true).open(path).map_err(failed)?;
        return write_all(&mut file, value).map_err(failed);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = File::create(&part).and_then(|mut file| write_all(&mut file, value));
    written.and_then(|()| std::fs::rename(&part, path)).map_err(|error| {
        // It may not exist; what counts is the error before.
        let _ = std::fs::remove_file(&part);
        failed(error)
    })
}

/// Writes a value to stdout as it is; text on a terminal gets an end of line.
pub(crate) fn write_stdout(value: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(value)?;
    if io::stdout().is_terminal() && std::str::from_utf8(value).is_ok_and(|text| !text.ends_with('\n')) {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

fn write_all(out: &mut impl Write, value: &[u8]) -> io::Result<()> {
    let bar = (value.len() as u64 > PROGRESS_FROM_BYTES).then(|| bar(value.len() as u64, "writing"));
    for piece in value.chunks(PIECE_BYTES) {
        out.write_all(piece)?;
        if let Some(bar) = &bar {
            bar.inc(piece.len() as u64);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    out.flush()
}

fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
        .expect("a template that indicatif knows");
    ProgressBar::new(length).with_style(style).with_message(what)
}

/// Shows that something takes its time, if a person looks on and `bytes` are many (or not known).
pub(crate) fn waiting(what: impl Into<std::borrow::Cow<'static, str>>, bytes: Option<u64>) -> ProgressBar {
    if !output::stderr_is_terminal() || bytes.is_some_and(|bytes| bytes <= PROGRESS_FROM_BYTES) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a template that indicatif knows");
    let spinner = ProgressBar::new_spinner().with_style(style).with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: &[u8], encoding: Encoding) -> Object {
        Object { value: Bytes::copy_from_slice(value).into(), version: Version(3), encoding }
    }

    #[test]
    fn a_word_is_itself_a_file_or_escaped() {
        assert_eq!(read(Some("plain"), 10).expect("a word"), "plain");
        assert_eq!(read(Some("@@at"), 10).expect("a word"), "@at");
        assert!(read(Some("@/does/not/exist"), 10).is_err());
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("value");
        std::fs::write(&path, b"0123456789").expect("a file");
        let word = format!("@{}", path.display());
        assert_eq!(read(Some(&word), 10).expect("a file"), "0123456789");
        assert!(read(Some(&word), 9).is_err(), "one byte too many");
        assert!(read_all(&b"0123456789"[..], None, 9, "stdin").is_err(), "also where the length is not known");
    }

    #[test]
    fn a_large_file_is_read_where_it_is_to_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("value");
        let word = format!("@{}", path.display());
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i / 3) as u8).collect();
        std::fs::write(&path, &bytes).expect("a file");
        let open = || large_file(Some(&word), 1 << 20).expect("a file").expect("a large one");
        let mut target = vec![0; open().length()];
        open().read_into(&mut target).expect("all of it");
        assert!(target == bytes);
        let (shorter, longer) = (open(), open());
        std::fs::write(&path, &bytes[..100_000]).expect("a file");
        assert!(shorter.read_into(&mut target).is_err(), "it has become shorter");
        std::fs::write(&path, [&bytes[..], b"more"].concat()).expect("a file");
        assert!(longer.read_into(&mut target).is_err(), "it has become longer");
        for (word, bytes_max) in [(word.as_str(), 100_000), ("@@at", 10), ("plain", 10), ("-", 10)] {
            assert!(large_file(Some(word), bytes_max).expect("nothing wrong").is_none(), "{word}");
        }
        assert!(large_file(Some("@/does/not/exist"), 10).expect("nothing wrong").is_none());
    }

    #[test]
    fn json_values_keep_their_text() {
        let (bytes, encoding) = from_json(b" {\"b\": 1.50, \"a\": []} ").expect("JSON");
        assert_eq!((bytes.as_ref(), encoding), (&b"{\"b\": 1.50, \"a\": []}"[..], Encoding::Json));
        assert_eq!(from_json(br#""a\nb""#).expect("JSON"), (Bytes::from_static(b"a\nb"), Encoding::Raw));
        assert!(from_json(b"{").is_err());
    }

    #[test]
    fn objects_look_like_on_the_wire() {
        let text = |object: &Object| serde_json::to_string(&JsonObject::new("k", object)).expect("JSON");
        let plain = text(&object(b"text", Encoding::Raw));
        assert_eq!(plain, r#"{"status":"OK","key":"k","value":"text","version":3}"#);
        let long = text(&object(b"[1.50, 123456789012345678901]", Encoding::Json));
        assert!(long.contains(r#""value":[1.50, 123456789012345678901]"#), "{long}");
        assert!(text(&object(b"[1]", Encoding::Raw)).contains(r#""value":"[1]""#));
        assert!(text(&object(&[0xff], Encoding::Raw)).contains(r#""value_b64":"/w==""#));
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("out");
        write_file(&path, b"one").expect("written");
        write_file(&path, b"two").expect("written");
        assert_eq!(std::fs::read(&path).expect("the file"), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 1);
        assert!(write_file(&directory.path().join("no/such/place"), b"x").is_err());
    }
}

//! Listing a directory tree in the bytewise order of keys, from a key on, without reading subtrees that are over.
use super::super::{Key, Listed, key};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// One page of a listing.
pub(crate) struct Walk<'a> {
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    found: Vec<Listed>,
}

impl<'a> Walk<'a> {
    /// Up to `limit` files below `root` whose keys start with `prefix` and are greater than `after`. Names that are
    /// no key's are passed over. Blocks.
    pub(crate) fn page(root: &Path, prefix: &'a str, after: Option<&'a Key>, limit: usize) -> io::Result<Vec<Listed>> {
        let mut walk = Walk { prefix, after: after.map_or("", String::as_str), limit, found: Vec::new() };
        let start = key::directory(prefix);
        if start.split('/').filter(|s| !s.is_empty()).all(key::is_segment) {
            walk.directory(&root.join(start), start)?;
        }
        Ok(walk.found)
    }

    /// Adds what is in the directory `path`, whose keys start with `base` (empty or ending in `/`).
    fn directory(&mut self, path: &Path, base: &str) -> io::Result<()> {
        let entries = match fs::read_dir(path) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            entries => entries?,
        };
        let mut keys = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !key::is_segment(&name) {
                continue;
            }
            // With its '/', a directory sorts among its neighbours as all the keys in it do.
            let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
            let key = format!("{base}{name}{slash}");
            if self.may_hold(&key) {
                keys.push(key);
            }
        }
        keys.sort_unstable();
        for key in keys {
            if self.found.len() >= self.limit {
                return Ok(());
            }
            let below = path.join(key[base.len()..].trim_end_matches('/'));
            if key.ends_with('/') {
                self.directory(&below, &key)?;
            } else if let Ok(meta) = fs::metadata(&below) {
                // A file that is gone by now was deleted meanwhile.
                self.found.push(Listed { key, bytes: meta.len() });
            }
        }
        Ok(())
    }

    /// Whether `key`, or a key in it if it is a directory's, belongs to the page.
    fn may_hold(&self, key: &str) -> bool {
        let is_directory = key.ends_with('/');
        let prefixed = key.starts_with(self.prefix) || (is_directory && self.prefix.starts_with(key));
        prefixed && (key > self.after || (is_directory && self.after.starts_with(key)))
    }
}

//! Files and folders: what a program sees now, and what a power cut leaves.

use crate::lossy::content::{Content, Order, PAGE_BYTES};
use crate::random::Random;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A file's or folder's number; never used again.
pub type Inode = u64;

/// The number of the outermost folder, as the protocol wants it.
pub const ROOT: Inode = 1;

/// One change of a folder: a name goes, a name comes, or both at once.
#[derive(Clone, Debug)]
struct EntryChange {
    order: Order,
    gone: Option<String>,
    come: Option<(String, Inode)>,
}

#[derive(Clone, Debug, Default)]
struct Folder {
    now: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
    unsynced: Vec<EntryChange>,
}

impl Folder {
    fn change(&mut self, change: EntryChange) {
        apply(&change, &mut self.now);
        self.unsynced.push(change);
    }

    /// The oldest changes become durable.
    fn settle(&mut self, count: usize) {
        for change in self.unsynced.drain(..count) {
            apply(&change, &mut self.durable);
        }
    }
}

fn apply(change: &EntryChange, entries: &mut BTreeMap<String, Inode>) {
    if let Some(name) = &change.gone {
        entries.remove(name);
    }
    if let Some((name, inode)) = &change.come {
        entries.insert(name.clone(), *inode);
    }
}

#[derive(Clone, Debug)]
enum Entry {
    Folder(Folder),
    File(Content),
}

/// What a power cut took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// By file: sectors that do not hold what was written to them last.
    pub sectors: BTreeMap<String, u64>,
    /// Names made, renamed or removed for nothing.
    pub names: u64,
}

impl Lost {
    /// How many sectors were lost in files below a path.
    #[must_use]
    pub fn sectors_below(&self, path: &str) -> u64 {
        let below = self
            .sectors
            .iter()
            .filter(|(file, _)| file.starts_with(path));
        below.map(|(_, sectors)| sectors).sum()
    }

    /// Adds what another disk lost.
    pub fn add(&mut self, other: &Lost) {
        for (file, sectors) in &other.sectors {
            *self.sectors.entry(file.clone()).or_default() += sectors;
        }
        self.names += other.names;
    }
}

/// What there is to know about a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its number.
    pub inode: Inode,
    /// Whether it is a folder.
    pub folder: bool,
    /// Its length in bytes.
    pub length: u64,
    /// How many pages it takes.
    pub pages: u64,
}

/// A file system.
#[derive(Clone, Debug)]
pub struct Model {
    entries: BTreeMap<Inode, Entry>,
    inode_next: Inode,
    order: Order,
    /// Pages of all files that have a name now.
    pages: u64,
    pages_max: u64,
}

impl Model {
    /// An empty file system of that many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Model {
        Model {
            entries: BTreeMap::from([(ROOT, Entry::Folder(Folder::default()))]),
            inode_next: ROOT + 1,
            order: 0,
            pages: 0,
            pages_max: bytes / PAGE_BYTES,
        }
    }

    /// The last change: what is synced up to here includes it.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// How many pages there are, and how many are free.
    #[must_use]
    pub fn space(&self) -> (u64, u64) {
        (self.pages_max, self.pages_max.saturating_sub(self.pages))
    }

    /// Leaves so many bytes free, from now on.
    pub fn set_free(&mut self, bytes: u64) {
        self.pages_max = self.pages + bytes / PAGE_BYTES;
    }

    /// What is known about it.
    ///
    /// # Errors
    /// ENOENT.
    pub fn facts(&self, inode: Inode) -> Result<Facts, Errno> {
        let (folder, length, pages) = match self.entries.get(&inode).ok_or(Errno::NOENT)? {
            Entry::Folder(folder) => (true, folder.now.len() as u64, 0),
            Entry::File(content) => (false, content.length(), content.pages()),
        };
        Ok(Facts {
            inode,
            folder,
            length,
            pages,
        })
    }

    /// The entry of that name in a folder.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn look_up(&self, folder: Inode, name: &str) -> Result<Inode, Errno> {
        let found = self.folder(folder)?.now.get(name);
        found.copied().ok_or(Errno::NOENT)
    }

    /// The names in a folder.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn names(&self, folder: Inode) -> Result<Vec<(String, Inode)>, Errno> {
        let now = &self.folder(folder)?.now;
        Ok(now
            .iter()
            .map(|(name, inode)| (name.clone(), *inode))
            .collect())
    }

    /// The file or folder at a path like `volumes/1/slots`.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<Inode> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |folder, name| self.look_up(folder, name))
            .ok()
    }

    /// The paths of all files, with their numbers.
    #[must_use]
    pub fn files(&self) -> Vec<(String, Inode)> {
        let mut found = Vec::new();
        let mut folders = vec![(String::new(), ROOT)];
        while let Some((path, folder)) = folders.pop() {
            for (name, inode) in self.names(folder).unwrap_or_default() {
                let path = format!("{path}/{name}");
                match self.entries.get(&inode) {
                    Some(Entry::Folder(_)) => folders.push((path, inode)),
                    _ => found.push((path.trim_start_matches('/').to_owned(), inode)),
                }
            }
        }
        found.sort();
        found
    }

    /// Makes an empty file or folder.
    ///
    /// # Errors
    /// EEXIST, ENOENT, ENOTDIR.
    pub fn make(&mut self, folder: Inode, name: &str, is_folder: bool) -> Result<Inode, Errno> {
        if self.folder(folder)?.now.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let inode = self.inode_next;
        self.inode_next += 1;
        let entry = if is_folder {
            Entry::Folder(Folder::default())
        } else {
            Entry::File(Content::default())
        };
        self.entries.insert(inode, entry);
        self.change(folder, None, Some((name.to_owned(), inode)))?;
        Ok(inode)
    }

    /// Removes a name. Who has the file open goes on with it.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EISDIR, ENOTEMPTY.
    pub fn remove(&mut self, folder: Inode, name: &str, is_folder: bool) -> Result<(), Errno> {
        let inode = self.look_up(folder, name)?;
        match (&self.entries[&inode], is_folder) {
            (Entry::Folder(removed), true) if !removed.now.is_empty() => {
                return Err(Errno::NOTEMPTY);
            }
            (Entry::Folder(_), true) | (Entry::File(_), false) => {}
            (Entry::Folder(_), false) => return Err(Errno::ISDIR),
            (Entry::File(_), true) => return Err(Errno::NOTDIR),
        }
        self.pages -= self.facts(inode)?.pages;
        self.change(folder, Some(name.to_owned()), None)
    }

    /// Renames within a folder, over what has the new name.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR; EXDEV for another folder: nobody here needs that.
    pub fn rename(&mut self, from: (Inode, &str), to: (Inode, &str)) -> Result<(), Errno> {
        if from.0 != to.0 {
            return Err(Errno::XDEV);
        }
        let inode = self.look_up(from.0, from.1)?;
        if let Ok(replaced) = self.look_up(to.0, to.1) {
            if replaced == inode {
                return Ok(());
            }
            if self.facts(replaced)?.folder {
                return Err(Errno::NOTEMPTY);
            }
            self.pages -= self.facts(replaced)?.pages;
        }
        let come = (to.1.to_owned(), inode);
        self.change(from.0, Some(from.1.to_owned()), Some(come))
    }

    /// Reads as much as there is.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn read(&self, file: Inode, offset: u64, length: u64) -> Result<Vec<u8>, Errno> {
        match self.entries.get(&file).ok_or(Errno::NOENT)? {
            Entry::File(content) => Ok(content.read(offset, length)),
            Entry::Folder(_) => Err(Errno::ISDIR),
        }
    }

    /// Writes; the moment at which that was.
    ///
    /// # Errors
    /// ENOENT, EISDIR, ENOSPC.
    pub fn write(&mut self, file: Inode, offset: u64, data: &[u8]) -> Result<Order, Errno> {
        let range = offset..offset + data.len() as u64;
        self.change_content(file, Some(&range), |content, order| {
            content.write(order, offset, data);
        })
    }

    /// Takes space for a range; with `longer`, the file reaches to its end afterwards.
    ///
    /// # Errors
    /// ENOENT, EISDIR, ENOSPC.
    pub fn allocate(&mut self, file: Inode, range: &Range<u64>, longer: bool) -> Result<(), Errno> {
        self.change_content(file, Some(range), |content, order| {
            content.allocate(order, range, longer);
        })?;
        Ok(())
    }

    /// Makes a hole.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn punch(&mut self, file: Inode, range: &Range<u64>) -> Result<(), Errno> {
        self.change_content(file, None, |content, order| content.punch(order, range))?;
        Ok(())
    }

    /// Cuts or lengthens a file.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn set_length(&mut self, file: Inode, length: u64) -> Result<(), Errno> {
        self.change_content(file, None, |content, order| {
            content.set_length(order, length)
        })?;
        Ok(())
    }

    /// All changes of a file's bytes, or of a folder's names, up to that moment are durable.
    ///
    /// # Errors
    /// ENOENT.
    pub fn sync(&mut self, inode: Inode, until: Order) -> Result<(), Errno> {
        match self.entries.get_mut(&inode).ok_or(Errno::NOENT)? {
            Entry::File(content) => content.sync(until),
            Entry::Folder(folder) => {
                folder.settle(
                    folder
                        .unsynced
                        .partition_point(|change| change.order <= until),
                );
            }
        }
        Ok(())
    }

    /// What was written to a range of a file up to that moment is durable.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn sync_range(
        &mut self,
        file: Inode,
        range: &Range<u64>,
        until: Order,
    ) -> Result<(), Errno> {
        self.content_mut(file)?.sync_range(range, until);
        Ok(())
    }

    /// Turns one bit over, on the medium itself.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn flip(&mut self, file: Inode, offset: u64, bit: u8) -> Result<(), Errno> {
        self.content_mut(file)?.flip(offset, bit);
        Ok(())
    }

    /// The power is cut, and comes back: what is left becomes what is there.
    pub fn cut(&mut self, seed: u64) -> Lost {
        let mut random = Random::new(seed);
        let mut lost = Lost::default();
        let paths: BTreeMap<Inode, String> = self
            .files()
            .into_iter()
            .map(|(path, inode)| (inode, path))
            .collect();
        for (inode, entry) in &mut self.entries {
            match entry {
                Entry::File(content) => {
                    let sectors = content.cut(&mut random);
                    if let Some(path) = paths.get(inode).filter(|_| sectors > 0) {
                        lost.sectors.insert(path.clone(), sectors);
                    }
                }
                Entry::Folder(folder) => {
                    let left = random.below(folder.unsynced.len() as u64 + 1) as usize;
                    folder.settle(left);
                    lost.names += folder.unsynced.len() as u64;
                    folder.unsynced.clear();
                    folder.now = folder.durable.clone();
                }
            }
        }
        self.forget_what_has_no_name();
        lost
    }

    fn forget_what_has_no_name(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut waiting = vec![ROOT];
        while let Some(inode) = waiting.pop() {
            if let Some(Entry::Folder(folder)) = self.entries.get(&inode) {
                for inner in folder.now.values() {
                    if reached.insert(*inner) {
                        waiting.push(*inner);
                    }
                }
            }
        }
        self.entries.retain(|inode, _| reached.contains(inode));
        let pages = self.entries.values().map(|entry| match entry {
            Entry::File(content) => content.pages(),
            Entry::Folder(_) => 0,
        });
        self.pages = pages.sum();
    }

    fn folder(&self, inode: Inode) -> Result<&Folder, Errno> {
        match self.entries.get(&inode).ok_or(Errno::NOENT)? {
            Entry::Folder(folder) => Ok(folder),
            Entry::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn content_mut(&mut self, inode: Inode) -> Result<&mut Content, Errno> {
        match self.entries.get_mut(&inode).ok_or(Errno::NOENT)? {
            Entry::File(content) => Ok(content),
            Entry::Folder(_) => Err(Errno::ISDIR),
        }
    }

    fn change(
        &mut self,
        folder: Inode,
        gone: Option<String>,
        come: Option<(String, Inode)>,
    ) -> Result<(), Errno> {
        self.order += 1;
        let order = self.order;
        match self.entries.get_mut(&folder).ok_or(Errno::NOENT)? {
            Entry::Folder(folder) => folder.change(EntryChange { order, gone, come }),
            Entry::File(_) => return Err(Errno::NOTDIR),
        }
        Ok(())
    }

    /// Changes a file, if there is space for `range` of it.
    fn change_content(
        &mut self,
        file: Inode,
        range: Option<&Range<u64>>,
        change: impl FnOnce(&mut Content, Order),
    ) -> Result<Order, Errno> {
        let (_, free) = self.space();
        self.order += 1;
        let order = self.order;
        let content = self.content_mut(file)?;
        let before = content.pages();
        if range.is_some_and(|range| content.pages_wanted(range) > free) {
            return Err(Errno::NOSPC);
        }
        change(content, order);
        let after = content.pages();
        self.pages = (self.pages + after).saturating_sub(before);
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lefts(model: &Model) -> BTreeSet<Vec<String>> {
        let cut = |seed| {
            let mut model = model.clone();
            model.cut(seed);
            model.files().into_iter().map(|(path, _)| path).collect()
        };
        (0..100).map(cut).collect()
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_synced_file_is_gone_unless_its_folder_is_synced_too() {
        let mut model = Model::new(1 << 20);
        let file = model.make(ROOT, "a", false).unwrap();
        model.write(file, 0, &[7; 512]).unwrap();
        model.sync(file, model.order()).unwrap();
        assert_eq!(lefts(&model), [list(&[]), list(&["a"])].into());
        model.sync(ROOT, model.order()).unwrap();
        assert_eq!(lefts(&model), [list(&["a"])].into());
        model.cut(1);
        assert_eq!(model.read(file, 0, 512).unwrap(), [7; 512]);
    }

    #[test]
    fn a_rename_happens_whole_or_not_and_a_removed_file_may_come_back() {
        let mut model = Model::new(1 << 20);
        model.make(ROOT, "old", false).unwrap();
        model.sync(ROOT, model.order()).unwrap();
        model.rename((ROOT, "old"), (ROOT, "new")).unwrap();
        assert_eq!(lefts(&model), [list(&["new"]), list(&["old"])].into());
        model.remove(ROOT, "new", false).unwrap();
        assert_eq!(
            lefts(&model),
            [list(&[]), list(&["new"]), list(&["old"])].into()
        );
    }

    #[test]
    fn a_file_in_a_folder_needs_both_their_names() {
        let mut model = Model::new(1 << 20);
        let folder = model.make(ROOT, "f", true).unwrap();
        model.make(folder, "a", false).unwrap();
        model.sync(folder, model.order()).unwrap();
        assert_eq!(lefts(&model), [list(&[]), list(&["f/a"])].into());
    }

    #[test]
    fn space_is_counted_and_given_back() {
        let mut model = Model::new(3 * PAGE_BYTES);
        let file = model.make(ROOT, "a", false).unwrap();
        model.allocate(file, &(0..2 * PAGE_BYTES), true).unwrap();
        assert_eq!(model.space(), (3, 1));
        assert_eq!(
            model.write(file, PAGE_BYTES, &[1; 3 * 4096]),
            Err(Errno::NOSPC)
        );
        model.write(file, PAGE_BYTES, &[1; 2 * 4096]).unwrap();
        model.punch(file, &(0..PAGE_BYTES)).unwrap();
        assert_eq!(model.space(), (3, 1));
        model.remove(ROOT, "a", false).unwrap();
        assert_eq!(model.space(), (3, 3));
        model.cut(1);
        model.set_free(PAGE_BYTES);
        assert_eq!(model.space().1, 1);
    }
}

//! The users of a table: how many producers each has there, and since when all his writes are covered.

use hashbrown::HashTable;

#[derive(Debug)]
struct User {
    word: u64,
    /// Unix seconds; 0: nothing of this user alone was forgotten.
    horizon: u32,
    producers: u32,
}

/// Users by the word of their [`ProducerKey`](crate::publish::ProducerKey)s.
#[derive(Debug)]
pub(super) struct Users {
    index: HashTable<u32>,
    users: Vec<User>,
    free: Vec<u32>,
}

impl Users {
    pub(super) const fn new() -> Self {
        Self { index: HashTable::new(), users: Vec::new(), free: Vec::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.index.allocation_size()
            + self.users.capacity() * size_of::<User>()
            + self.free.capacity() * size_of::<u32>()
    }

    /// Bytes of what is said, without room for more.
    pub(super) fn live_bytes(&self) -> usize {
        self.index.len() * (size_of::<User>() + 2 * size_of::<u32>())
    }

    /// How many places there are, those that are free included.
    pub(super) const fn places(&self) -> usize {
        self.users.len()
    }

    fn find(&self, word: u64) -> Option<u32> {
        self.index.find(word, |at| self.users[*at as usize].word == word).copied()
    }

    /// Unix seconds since which all writes of the user are covered, as far as they were not forgotten with
    /// everybody's.
    pub(super) fn horizon(&self, word: u64) -> u32 {
        self.find(word).map_or(0, |at| self.users[at as usize].horizon)
    }

    /// One producer more; where the user stands.
    pub(super) fn add(&mut self, word: u64) -> u32 {
        let at = self.find(word).unwrap_or_else(|| self.insert(word));
        self.users[at as usize].producers += 1;
        at
    }

    /// One producer less.
    pub(super) fn remove(&mut self, at: u32) {
        let user = &mut self.users[at as usize];
        user.producers -= 1;
        if user.producers == 0 && user.horizon == 0 {
            self.drop_place(at);
        }
    }

    /// Covers less of one user.
    pub(super) fn raise(&mut self, word: u64, horizon: u32) {
        let at = self.find(word).unwrap_or_else(|| self.insert(word));
        let user = &mut self.users[at as usize];
        user.horizon = user.horizon.max(horizon);
    }

    /// Everybody's writes are covered only since `horizon`: whose own is older has none any longer.
    pub(super) fn raise_all(&mut self, horizon: u32) {
        for at in 0..u32::try_from(self.users.len()).unwrap_or(u32::MAX) {
            let user = &mut self.users[at as usize];
            if user.horizon > 0 && user.horizon <= horizon {
                user.horizon = 0;
                if user.producers == 0 {
                    self.drop_place(at);
                }
            }
        }
    }

    /// Those with a horizon of their own.
    pub(super) fn raised(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.users.iter().filter(|user| user.horizon > 0).map(|user| (user.word, user.horizon))
    }

    fn insert(&mut self, word: u64) -> u32 {
        let user = User { word, horizon: 0, producers: 0 };
        let at = if let Some(at) = self.free.pop() {
            self.users[at as usize] = user;
            at
        } else {
            super::push_tight(&mut self.users, user);
            u32::try_from(self.users.len() - 1).unwrap_or(u32::MAX)
        };
        let users = &self.users;
        self.index.insert_unique(word, at, |at| users[*at as usize].word);
        at
    }

    fn drop_place(&mut self, at: u32) {
        let word = self.users[at as usize].word;
        if let Ok(entry) = self.index.find_entry(word, |place| *place == at) {
            entry.remove();
        }
        self.free.push(at);
    }
}

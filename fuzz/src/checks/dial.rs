//! The settings of a check, taken from the first bytes of its input, so that a fuzzer turns them too.
//!
//! Settings come first and the rest is the input: a mutation of the input leaves the settings alone.

/// The bytes not taken yet. What is no longer there is 0.
pub struct Dial<'a>(&'a [u8]);

impl<'a> Dial<'a> {
    /// All of a check's bytes.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// The next byte as a number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// One of several.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// The next four bytes as places, in parts of 256 of an input's length.
    pub fn places(&mut self) -> [u8; 4] {
        [self.byte(), self.byte(), self.byte(), self.byte()]
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// An input cut at places, in order.
pub fn cut<'a>(input: &'a [u8], places: &[u8]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> =
        places.iter().map(|&place| usize::from(place) * (input.len() + 1) / 256).collect();
    at.extend([0, input.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
}

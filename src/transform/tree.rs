//! Nested structures of values.

use std::collections::BTreeMap;

use crate::{Array, Element, Error, Result, Results, Shape, Tensor};

/// Values in lists and in maps by name, nested in any way: the arguments, results and base ranks of
/// [`auto_vmap`](crate::auto_vmap).
///
/// It is made from a value, or with `into` from an `Option`, an array, a `Vec` or a tuple of up to six of what makes
/// one, and of names from an array of pairs of a name and what makes one, or a `BTreeMap`. Rust numbers are
/// [`Array`]s without dimensions.
///
/// ```
/// use xlann::{Array, Tree};
///
/// let vector = Array::new([2], &[1f32, 2.0])?;
/// let tree: Tree<Array> = (2f32, [("v", Some(&vector)), ("m", None)]).into();
/// assert_eq!(*tree.get(0)?.leaf()?, Array::scalar(2f32));
/// assert_eq!(*tree.get(1)?.get("v")?.leaf()?, vector);
/// assert_eq!(*tree.get(1)?.get("m")?, Tree::None);
/// assert_eq!(tree.leaves().len(), 2);
///
/// let refused = tree.get(1)?.get("w").unwrap_err();
/// assert_eq!(refused.to_string(), "tree: key must be one of a map of m, v, got w");
/// # Ok::<(), xlann::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree<T> {
    /// No value.
    None,
    /// A value.
    Leaf(T),
    /// Values in order.
    List(Vec<Tree<T>>),
    /// Values by name. The names are in increasing order, as the conversions put them, and each is there once.
    Map(Vec<(String, Tree<T>)>),
}

/// Names a child of a [`Tree`]: a position or a name.
///
/// ```
/// use xlann::transform::Key;
///
/// assert_eq!(Key::from(1), Key::Position(1));
/// assert_eq!(Key::from("v"), Key::Name("v"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// A position in a list.
    Position(usize),
    /// A name in a map.
    Name(&'a str),
}

impl<T> Tree<T> {
    /// The value, of a leaf.
    ///
    /// # Errors
    /// Where it is not a leaf.
    ///
    /// ```
    /// use xlann::Tree;
    ///
    /// assert_eq!(*Tree::Leaf(1).leaf()?, 1);
    /// let refused = Tree::from([1, 2]).leaf().unwrap_err();
    /// assert_eq!(refused.to_string(), "tree: value must be a leaf, got a list of 2");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn leaf(&self) -> Result<&T> {
        match self {
            Tree::Leaf(value) => Ok(value),
            other => Err(Error::argument("tree", "value", "a leaf", other.kind())),
        }
    }

    /// What is at that position of a list, or under that name in a map.
    ///
    /// # Errors
    /// Where there is no such position or name.
    ///
    /// ```
    /// use xlann::Tree;
    ///
    /// let ranks: Tree<usize> = [("m", [2, 1])].into();
    /// assert_eq!(*ranks.get("m")?.get(1)?, Tree::Leaf(1));
    /// assert!(ranks.get(0).is_err());
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn get<'a>(&self, key: impl Into<Key<'a>>) -> Result<&Tree<T>> {
        let key = key.into();
        let child = match (self, key) {
            (Tree::List(items), Key::Position(position)) => items.get(position),
            (Tree::Map(entries), Key::Name(name)) => {
                entries.iter().find(|entry| entry.0 == name).map(|entry| &entry.1)
            }
            _ => None,
        };
        child.ok_or_else(|| Error::argument("tree", "key", format!("one of {}", self.kind()), key))
    }

    /// The values: those of a list by position, those of a map by name.
    ///
    /// ```
    /// use xlann::Tree;
    ///
    /// let ranks: Tree<usize> = [("v", 1), ("m", 2)].into();
    /// assert_eq!(ranks.leaves(), [&2, &1]);
    /// ```
    pub fn leaves(&self) -> Vec<&T> {
        match self {
            Tree::None => Vec::new(),
            Tree::Leaf(value) => vec![value],
            Tree::List(items) => items.iter().flat_map(Tree::leaves).collect(),
            Tree::Map(entries) => entries.iter().flat_map(|(_, item)| item.leaves()).collect(),
        }
    }

    /// The same structure of other values.
    ///
    /// ```
    /// use xlann::{Array, DType, Shape, Tree};
    ///
    /// let arrays: Tree<Array> = [("x", 1f32), ("y", 2f32)].into();
    /// let shapes = arrays.map(|array| array.shape().clone());
    /// assert_eq!(*shapes.get("y")?.leaf()?, Shape::scalar(DType::F32));
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn map<U>(&self, mut value: impl FnMut(&T) -> U) -> Tree<U> {
        self.map_with(&mut value)
    }

    /// The same structure of other values, of which none may fail to be made.
    ///
    /// # Errors
    /// The first of `value`.
    ///
    /// ```
    /// use xlann::{Array, Builder, Tensor, Tree};
    ///
    /// let builder = Builder::new("f");
    /// let arrays: Tree<Array> = [("x", 1f32), ("y", 2f32)].into();
    /// let parameters = arrays.try_map(|array| builder.parameter("", array.shape().clone()))?;
    /// let function = builder.finish(parameters)?;
    /// assert_eq!(function.result_shapes().len(), 2);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn try_map<U>(&self, mut value: impl FnMut(&T) -> Result<U>) -> Result<Tree<U>> {
        let values = self.leaves().into_iter().map(&mut value).collect::<Result<Vec<_>>>()?;
        let mut values = values.into_iter();
        Ok(self.map(|_| values.next().expect("there is a value for each leaf")))
    }

    fn map_with<U>(&self, value: &mut dyn FnMut(&T) -> U) -> Tree<U> {
        match self {
            Tree::None => Tree::None,
            Tree::Leaf(leaf) => Tree::Leaf(value(leaf)),
            Tree::List(items) => Tree::List(items.iter().map(|item| item.map_with(value)).collect()),
            Tree::Map(entries) => {
                let entries = entries.iter().map(|(name, item)| (name.clone(), item.map_with(value)));
                Tree::Map(entries.collect())
            }
        }
    }

    /// The same structure of these values, in the order of [`leaves`](Tree::leaves): what a function gives as a list,
    /// as the tree that it stands for.
    ///
    /// # Errors
    /// Where there are not as many values as leaves.
    ///
    /// ```
    /// use xlann::Tree;
    ///
    /// let ranks: Tree<usize> = [("v", 1), ("m", 2)].into();
    /// assert_eq!(ranks.with_leaves(&[7, 8])?, [("m", 7), ("v", 8)].into());
    /// let refused = ranks.with_leaves(&[7]).unwrap_err();
    /// assert_eq!(refused.to_string(), "tree: values must be 2, one for each leaf, got 1");
    /// # Ok::<(), xlann::Error>(())
    /// ```
    pub fn with_leaves<U: Clone>(&self, values: &[U]) -> Result<Tree<U>> {
        let count = self.leaves().len();
        if values.len() != count {
            return Err(Error::argument(
                "tree",
                "values",
                format!("{count}, one for each leaf"),
                values.len(),
            ));
        }
        let mut values = values.iter();
        self.try_map(|_| Ok(values.next().expect("there is a value for each leaf").clone()))
    }

    /// The children of a list or a map, by position or name.
    pub(crate) fn children(&self) -> Vec<(String, &Tree<T>)> {
        match self {
            Tree::None | Tree::Leaf(_) => Vec::new(),
            Tree::List(items) => {
                items.iter().enumerate().map(|(position, item)| (position.to_string(), item)).collect()
            }
            Tree::Map(entries) => entries.iter().map(|(name, item)| (name.clone(), item)).collect(),
        }
    }

    /// Requires of every map that its names are in order, each once.
    pub(crate) fn check_names(&self, operator: &'static str, argument: &str) -> Result<()> {
        if let Tree::Map(entries) = self
            && !entries.is_sorted_by(|a, b| a.0 < b.0)
        {
            let names: Vec<&str> = entries.iter().map(|entry| entry.0.as_str()).collect();
            let expected = "of names in increasing order, each once";
            return Err(Error::argument(operator, argument, expected, names.join(", ")));
        }
        self.children().iter().try_for_each(|(_, child)| child.check_names(operator, argument))
    }

    /// What it is, in words.
    pub(crate) fn kind(&self) -> String {
        match self {
            Tree::None => "none".to_owned(),
            Tree::Leaf(_) => "a leaf".to_owned(),
            Tree::List(items) => format!("a list of {}", items.len()),
            Tree::Map(entries) if entries.is_empty() => "an empty map".to_owned(),
            Tree::Map(entries) => {
                let names: Vec<&str> = entries.iter().map(|entry| entry.0.as_str()).collect();
                format!("a map of {}", names.join(", "))
            }
        }
    }

    fn named(entries: impl IntoIterator<Item = (impl Into<String>, impl Into<Tree<T>>)>) -> Tree<T> {
        let mut entries: Vec<_> =
            entries.into_iter().map(|(name, item)| (name.into(), item.into())).collect();
        entries.sort_by(|a: &(String, Tree<T>), b| a.0.cmp(&b.0));
        Tree::Map(entries)
    }
}

impl From<usize> for Key<'_> {
    fn from(position: usize) -> Self {
        Key::Position(position)
    }
}

impl<'a> From<&'a str> for Key<'a> {
    fn from(name: &'a str) -> Self {
        Key::Name(name)
    }
}

impl std::fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Position(position) => write!(f, "{position}"),
            Key::Name(name) => f.write_str(name),
        }
    }
}

// A conversion from any T would overlap with those from lists and maps.
macro_rules! leaves {
    ($($T:ty),*) => {$(
        impl From<$T> for Tree<$T> {
            fn from(value: $T) -> Self {
                Tree::Leaf(value)
            }
        }

        impl From<&$T> for Tree<$T> {
            fn from(value: &$T) -> Self {
                Tree::Leaf(value.clone())
            }
        }
    )*};
}
leaves!(usize, Shape, Array, Tensor);

impl Results for Tree<Tensor> {
    fn into_tensors(self) -> Vec<Tensor> {
        self.leaves().into_iter().cloned().collect()
    }
}

impl Results for (Tree<Tensor>, Tree<Tensor>) {
    fn into_tensors(self) -> Vec<Tensor> {
        [self.0.leaves(), self.1.leaves()].concat().into_iter().cloned().collect()
    }
}

impl<T: Element> From<T> for Tree<Array> {
    fn from(value: T) -> Self {
        Tree::Leaf(Array::scalar(value))
    }
}

impl<T: Clone> From<&Tree<T>> for Tree<T> {
    fn from(tree: &Tree<T>) -> Self {
        tree.clone()
    }
}

impl<T, U: Into<Tree<T>>> From<Option<U>> for Tree<T> {
    fn from(value: Option<U>) -> Self {
        value.map_or(Tree::None, Into::into)
    }
}

impl<T, U: Into<Tree<T>>> From<Vec<U>> for Tree<T> {
    fn from(items: Vec<U>) -> Self {
        Tree::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T, U: Into<Tree<T>>, const N: usize> From<[U; N]> for Tree<T> {
    fn from(items: [U; N]) -> Self {
        Tree::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T, U: Into<Tree<T>>, const N: usize> From<[(&str, U); N]> for Tree<T> {
    fn from(entries: [(&str, U); N]) -> Self {
        Tree::named(entries)
    }
}

impl<T, K: Into<String>, U: Into<Tree<T>>> From<BTreeMap<K, U>> for Tree<T> {
    fn from(entries: BTreeMap<K, U>) -> Self {
        Tree::named(entries)
    }
}

macro_rules! tuples {
    ($(($($T:ident $position:tt),+);)*) => {$(
        impl<Value, $($T: Into<Tree<Value>>),+> From<($($T,)+)> for Tree<Value> {
            fn from(items: ($($T,)+)) -> Self {
                Tree::List(vec![$(items.$position.into()),+])
            }
        }
    )*};
}
tuples! {
    (A 0);
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
    (A 0, B 1, C 2, D 3, E 4, F 5);
}

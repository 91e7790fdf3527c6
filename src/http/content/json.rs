//! Events as JSON objects, read without a tree: strings go from the body into the list of events.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde_json::Deserializer;

use super::collector::{Collector, Parts};
use crate::event::event_id::EventId;
use crate::event::list::{EventList, Span};
use crate::event::rule::{EventRule, Ids};
use crate::http::query::{Rejection, decimal};

/// Whether a body was one object or an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Object,
    Array,
}

/// Reads a whole body: an object, or an array of objects. An error may be one that the collector has noted.
pub(super) fn read(collector: &mut Collector<'_>, text: &str) -> serde_json::Result<Shape> {
    let mut json = Deserializer::from_str(text);
    let shape = json.deserialize_any(Document(collector))?;
    json.end()?;
    Ok(shape)
}

/// Reads an object that is all of `text`.
pub(super) fn read_event(
    collector: &mut Collector<'_>,
    text: &str,
) -> serde_json::Result<Result<Parts, Rejection>> {
    let mut json = Deserializer::from_str(text);
    let event = OneEvent::of(collector).deserialize(&mut json)?;
    json.end()?;
    Ok(event)
}

/// The whole body.
struct Document<'c, 'l>(&'c mut Collector<'l>);

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = Shape;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object or an array of objects")
    }

    // The default would repeat all of the text.
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Shape, E> {
        Err(E::invalid_type(Unexpected::Other("a string"), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Shape, A::Error> {
        let Self(collector) = self;
        let event = OneEvent::of(collector).visit_map(map)?;
        collector.add(event).map_err(A::Error::custom)?;
        Ok(Shape::Object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let Self(collector) = self;
        collector.expect_many();
        while let Some(event) = items.next_element_seed(OneEvent::of(collector))? {
            collector.add(event).map_err(A::Error::custom)?;
        }
        Ok(Shape::Array)
    }
}

/// One event: its texts are added to the list, and it is not.
struct OneEvent<'l> {
    list: &'l mut EventList,
    rule: EventRule,
}

impl<'l> OneEvent<'l> {
    /// The next event of a body.
    fn of(collector: &'l mut Collector<'_>) -> Self {
        let (list, rule) = collector.list();
        Self { list, rule }
    }
}

impl<'de> DeserializeSeed<'de> for OneEvent<'_> {
    type Value = Result<Parts, Rejection>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneEvent<'_> {
    type Value = Result<Parts, Rejection>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self { list, rule } = self;
        let (mut name, mut value, mut id) = (None, None, None);
        while let Some(key) = map.next_key_seed(KeySeed)? {
            let first = match key {
                Key::Name if name.is_none() => &mut name,
                Key::Value if value.is_none() => &mut value,
                Key::Id if id.is_none() && rule.ids != Ids::Ignored => &mut id,
                // The first of a repeated key wins.
                Key::Name | Key::Value | Key::Id | Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *first = Some(map.next_value_seed(FieldSeed(list))?);
        }
        Ok(check(list, rule, name, value, id))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err(Rejection::EventNotObject))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err(Rejection::EventNotObject))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err(Rejection::EventNotObject))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Err(Rejection::EventNotObject))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Err(Rejection::EventNotObject))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Err(Rejection::EventNotObject))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Err(Rejection::EventNotObject))
    }
}

/// Checks the parts of an event, in the order in which a query is checked.
fn check(
    list: &EventList,
    rule: EventRule,
    name: Option<Field>,
    value: Option<Field>,
    id: Option<Field>,
) -> Result<Parts, Rejection> {
    let name = match name {
        None | Some(Field::Null) => return Err(Rejection::NameMissing),
        Some(Field::Text(name)) => name,
        Some(Field::Integer(_) | Field::Other) => return Err(Rejection::NameNotString),
    };
    rule.check_name(list.text(name))?;
    let value = match value {
        None | Some(Field::Null) => return Err(Rejection::ValueMissing),
        Some(Field::Text(digits)) => decimal(list.text(digits).bytes(), rule.value_max)?,
        Some(Field::Integer(value)) => match u32::try_from(value) {
            Ok(value) if value <= rule.value_max => value,
            _ => return Err(Rejection::ValueTooLarge),
        },
        Some(Field::Other) => return Err(Rejection::ValueNotDecimal),
    };
    let id = match id {
        None | Some(Field::Null) => None,
        Some(Field::Text(id)) => match EventId::new(list.text(id)) {
            Ok(_) => Some(id),
            Err(fault) if rule.ids == Ids::Stored => return Err(fault.into()),
            Err(_) => None,
        },
        Some(Field::Integer(_) | Field::Other) if rule.ids == Ids::Stored => {
            return Err(Rejection::IdNotString);
        }
        Some(Field::Integer(_) | Field::Other) => None,
    };
    Ok(Parts { name, value, id })
}

/// A key of an event.
enum Key {
    Name,
    Value,
    Id,
    Other,
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Key, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            "name" => Key::Name,
            "value" => Key::Value,
            "id" => Key::Id,
            _ => Key::Other,
        })
    }
}

/// The value of a key.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// A string, which was added to the list.
    Text(Span),
    /// An integer that is not negative. One above 64 bits is the greatest of them.
    Integer(u64),
    Null,
    Other,
}

struct FieldSeed<'l>(&'l mut EventList);

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = Field;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Field, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = Field;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(self.0.add_text(text)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Field, E> {
        Ok(Field::Integer(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Field, E> {
        // The parser makes this of an integer above 64 bits too.
        Ok(if value >= u64::MAX as f64 {
            Field::Integer(u64::MAX)
        } else {
            Field::Other
        })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}

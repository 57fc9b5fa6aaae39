//! isthmus-transport

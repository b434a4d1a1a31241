"""Everyday questions that hardly any task is about: what a guard row asks. Made from the tables below."""

from __future__ import annotations

_OFF_TOPIC = {
    "cooking": "How do I bake {}?|What can I cook with {}?|How long should {} stay in the oven?",
    "sport": "Who won the last {} final?|How do I get better at {}?|What are the rules of {}?",
    "travel": "What should I see in {}?|Is it warm in {} in winter?|How do I get from {} to the sea?",
    "garden": "When do I plant {}?|Why are the leaves of my {} yellow?|How often should I water {}?",
    "health": "What helps against {}?|Should I see a doctor about {}?|Can children get {}?",
    "music": "Can you recommend some {}?|Who is the best player of {}?|How do I learn to play {}?",
}
_OFF_THINGS = {
    "cooking": "sourdough bread|a pumpkin|lentils|an apple tart|salmon|potatoes|pancakes|a cheesecake",
    "sport": "football|tennis|cricket|chess boxing|volleyball|hockey|badminton|rugby",
    "travel": "Lisbon|Kyoto|Nairobi|Quito|Oslo|Hanoi|Marrakesh|Vancouver",
    "garden": "tomatoes|roses|an olive tree|strawberries|basil|lavender|garlic|a fern",
    "health": "a headache|hay fever|back pain|a cold|insomnia|a sunburn|hiccups|a sprained ankle",
    "music": "jazz piano|the violin|flamenco|folk songs|the accordion|choir music|the harp|reggae",
}


def off_topic_questions() -> list[tuple[str, str]]:
    """(what it is about, the question), in the order of the tables: 144."""
    return [
        (thing, question.format(thing))
        for topic, questions in _OFF_TOPIC.items()
        for thing in _OFF_THINGS[topic].split("|")
        for question in questions.split("|")
    ]

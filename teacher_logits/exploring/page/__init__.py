"""The token view as one HTML page.

content   what is shown, as plain data      cells    the pieces of the text      palette   the colours
render    HTML of it                        view     the object for notebooks    files     template, style, script
"""

from teacher_logits.exploring.page.view import ConversationView, conversation_page, conversation_view

__all__ = ["ConversationView", "conversation_page", "conversation_view"]

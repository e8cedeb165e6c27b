"""The token view as one HTML page.

content   what is shown, as plain data       cells    the pieces of the text      palette   the colours
frame     what makes HTML of it, safely      view     the object for notebooks    files     templates, style, scripts
"""

from teacher_logits.exploring.page.frame import save_page, writable_page
from teacher_logits.exploring.page.view import ConversationView, conversation_page, conversation_view

__all__ = ["ConversationView", "conversation_page", "conversation_view", "save_page", "writable_page"]

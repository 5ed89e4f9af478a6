"""Stop requests in texts: what people write to get no more messages, and what they write about other things."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.policy.stop_requests import read_stop_request

STOPS = [
    # The words that the law names, alone, in any dress
    *(
        "STOP",
        "stop",
        "Stop.",
        "Stop!!!",
        " stop \n",
        "“STOP”",
        '"Stop"',
        "'stop'",
        "STOP 🛑",
        "🛑 Stop 🙏",
        "(stop)",
        "*STOP*",
    ),
    *(
        "S T O P",
        "S.T.O.P.",
        "s-t-o-p",
        "Stooop",
        "STOPP",
        "ＳＴＯＰ",
        "ST\u200bOP",
        "Sto\u0301p",
        "stop?",
        "StOp pLeAsE",
    ),
    *(
        "QUIT",
        "END",
        "REVOKE",
        "OPT OUT",
        "opt-out",
        "optout",
        "Opt_Out",
        "CANCEL",
        "UNSUBSCRIBE",
        "Stopall",
        "stop-all",
    ),
    # With courtesies, greetings, reasons
    *(
        "Stop please",
        "please stop",
        "Pls stop",
        "Please STOP now.",
        "STOP THANK YOU",
        "Ok stop",
        "Hi, please stop",
    ),
    *(
        "No thanks, stop",
        "just stop",
        "I said stop",
        "Cancel please",
        "please cancel",
        "End now",
        "quit pls",
        "Stop it",
    ),
    *(
        "Stop! I already bought one",
        "stop texting",
        "STOP CALLING ME",
        "Stop all messages",
        "stop this",
        "stop spamming",
    ),
    *(
        "Stop sending me these texts",
        "Stop with the texts, please. Stop texting",
        "STOP you have the wrong guy",
    ),
    *(
        "Can you stop",
        "Could you please stop texting me?",
        "will you STOP",
        "I want you to stop",
        "you need to stop this",
    ),
    *(
        "Not interested. Stop!",
        "Wrong number. STOP",
        "not interested, stop",
        "Who is this? Stop.",
        "Thanks! Unsubscribe.",
    ),
    *(
        "Unsubscribe me please",
        "please unsubscribe me",
        "How do I unsubscribe?",
        "I want to opt out",
        "opt me out",
    ),
    # With a signature, a quotation, the bridge's own words
    *(
        "Stop\n\nMaya Lindqvist\nHarbor Light Inc.",
        "Stop\nSent from my iPhone",
        "CANCEL\nBob Smith",
        "END, Maya",
        "Quit - Bob",
    ),
    *(
        "> Hi Maya, we tried to reach you.\nSTOP",
        "STOP\n> Reply STOP to opt out.",
        "Reply STOP to opt out",
        "Text STOP",
    ),
    # In other words
    *(
        "please don't text me again",
        "Don’t text me anymore",
        "dont contact me",
        "Do not contact me",
        "do not call me again!",
    ),
    *(
        "Please do not message this number again",
        "never text me again",
        "Please never call me again",
        "don't text here",
    ),
    *(
        "I no longer want to receive your texts",
        "I don't want these messages",
        "i dont want any more texts from you",
    ),
    *(
        "Remove me from your list",
        "take me off this list",
        "please remove my number",
        "Delete my number.",
        "remove me",
    ),
    *(
        "Lose my number",
        "take my number off your mailing list",
        "Remove me from all your lists please",
        "get me off ur list",
    ),
    *(
        "no more texts",
        "No more messages please",
        "No more of these!",
        "Please, no more spam",
        "leave me alone",
    ),
    *(
        "I revoke my consent",
        "I withdraw my consent to be contacted",
        "I don't wish to be contacted",
        "cease contacting me",
    ),
    *(
        "cancel these texts",
        "End messages",
        "quit texting me",
        "cancel text alerts",
        "please stop sending me these",
    ),
    *(
        "Please don't send me any more messages",
        "don't message me again, I am at work",
        "Don't text me, call instead",
    ),
    *(
        "Do not text or call me",
        "Do not call or text this number again",
        "I already told you stop",
        "Wrong number stop",
    ),
    *(
        "I no longer consent",
        "Cease and desist",
        "unsuscribe",
        "unsubcribe pls",
        "Take me off of your calling list",
    ),
    *(
        "I replied STOP to opt out and you still text me",
        "I told you to stop texting me",
        "STOP STOP STOP",
        "stopit",
    ),
    *(
        "I want to stop receiving these messages",
        "how do I stop getting your texts",
        "you have the wrong number, please remove me",
        "no longer interested, please remove",
        "please take my number off",
    ),
    *(
        "Do not call or text",
        "Please do not reach out again",
        "No more",
        "Please no more",
        "Cease",
        "SMS stop",
    ),
    *("Un-subscribe", "stopstop"),
    # Spanish
    *("no enviar más", "Paren", "Por favor no llamar más"),
    *(
        "BAJA",
        "baja por favor",
        "Alto",
        "PARE",
        "parar",
        "cancelar",
        "Salir",
        "darme de baja",
        "Quiero darme de baja",
    ),
    *(
        "No me escriban más",
        "no me manden mas mensajes",
        "por favor no me llamen",
        "Dejen de enviar mensajes",
        "no más mensajes",
    ),
    *("No quiero recibir más mensajes", "elimine mi número", "Bórreme de su lista", "Stop por favor"),
    # French
    *(
        "ARRET",
        "Arrêt",
        "arrêtez",
        "ARRÊTER svp",
        "Arrêtez de m'envoyer des messages",
        "Désabonner",
        "me désinscrire",
    ),
    *(
        "Ne m'envoyez plus de messages",
        "ne me contactez plus",
        "Je ne veux plus recevoir de SMS",
        "plus de messages svp",
    ),
    *("Supprimez mon numéro", "stop merci", "Retirez-moi de votre liste"),
    # German
    *(
        "Stopp",
        "Stop bitte",
        "ABMELDEN",
        "abmelden bitte",
        "Bitte abmelden",
        "Austragen",
        "Bitte nicht mehr schreiben",
        "Ende",
    ),
    *(
        "Keine weiteren Nachrichten bitte",
        "Schreiben Sie mir nicht mehr",
        "Hören Sie auf",
        "Löschen Sie meine Nummer",
    ),
    *(
        "Ich möchte keine SMS mehr",
        "Rufen Sie mich nicht mehr an",
        "Lassen Sie mich in Ruhe",
        "Nehmen Sie mich von der Liste",
    ),
    *(
        "Melden Sie mich ab",
        "Bitte melden Sie mich hier ab",
        "Tragen Sie mich bitte aus",
        "Stoppen Sie",
        "Schluss jetzt",
        "Nie wieder anrufen",
    ),
    "Bitte aus dem Verteiler nehmen",
    # Portuguese
    "Parem",
    *(
        "SAIR",
        "Parar",
        "pare",
        "cancelar",
        "Não me mande mais mensagens",
        "parem de me enviar mensagens",
        "Não me ligue mais",
    ),
    *("não quero mais receber mensagens", "Remova meu número", "Descadastrar"),
    # Italian
    *(
        "Basta",
        "basta messaggi",
        "ANNULLA",
        "Cancellami",
        "Disiscrivimi",
        "Non scrivetemi più",
        "non mandatemi più messaggi",
    ),
    *(
        "Smettetela di scrivermi",
        "Non voglio più ricevere messaggi",
        "Cancellate il mio numero",
        "stop grazie",
    ),
    # Dutch
    *(
        "Stoppen",
        "AFMELDEN",
        "Uitschrijven aub",
        "Stop maar",
        "Geen berichten meer",
        "Stuur mij geen sms meer",
        "Hou op",
    ),
    *("Stuur niet meer", "Haal mij van de lijst", "Verwijder mijn nummer", "bel me niet meer"),
    # Swedish
    *(
        "Stoppa",
        "Stopp",
        "sluta",
        "Avsluta",
        "avregistrera",
        "Sluta skicka sms",
        "Inga fler sms tack",
        "Ta bort mitt nummer",
    ),
    *("Skicka inga fler meddelanden", "Kontakta mig inte igen"),
    # Danish and Norwegian
    *("Afmeld", "frameld mig", "STANDS", "Skriv ikke til mig mere", "Ikke flere beskeder", "Slet mit nummer"),
    *(
        "Avmeld",
        "Slutt å ringe",
        "Ikke ring meg",
        "ikke send meg flere meldinger",
        "Fjern nummeret mitt",
        "Stans",
    ),
    # Finnish
    *(
        "Lopeta",
        "LOPETTAKAA",
        "Älkää lähettäkö viestejä",
        "Poista numeroni",
        "Ei enää viestejä",
        "En halua viestejä",
        "Peruuta",
    ),
    # Polish
    *(
        "Wypisz mnie",
        "Koniec",
        "REZYGNUJĘ",
        "Proszę nie pisać do mnie",
        "Nie dzwońcie do mnie więcej",
        "Przestańcie pisać",
    ),
    *("Proszę nie pisać", "Usuńcie mój numer", "nie chcę otrzymywać wiadomości"),
]
OTHERS = [
    # Stop words in another sense
    *(
        "The bus stop is closed",
        "this stop is closed",
        "Stop by tomorrow at 5",
        "Can you stop by at 5?",
        "stop in anytime",
    ),
    *(
        "You should stop by",
        "I stopped by yesterday",
        "Non-stop flights only",
        "Did the rain stop?",
        "We never stop learning",
    ),
    *(
        "Why did you stop texting me?",
        "Don't stop texting me",
        "Please don't stop",
        "When does it end?",
        "the end",
        "In the end yes",
    ),
    *(
        "End of the month works",
        "End date is fine",
        "Ending at 5 works",
        "Cancel my appointment tomorrow",
        "cancel it",
    ),
    *(
        "Please cancel my booking",
        "Cancel tomorrow's visit please",
        "Can I cancel?",
        "I need to cancel and rebook",
        "cancel today",
    ),
    *(
        "Please cancel the call",
        "I had to quit my job",
        "Quit smoking program?",
        "I'd like to cancel my order",
        "End it at 3",
    ),
    *(
        "Stop the delivery please",
        "Please stop my order",
        "Stop sign at the corner",
        "The stop light is broken",
        "one-stop shop",
    ),
    *(
        "I did not unsubscribe",
        "I don't want to opt out",
        "my opinion: revoked license?",
        "Is there an exit?",
        "Remove the old sink",
    ),
    *(
        "Remove me from the waiting list",
        "take me to the office",
        "Delete my order",
        "Remove item 3 from my order",
    ),
    # A time, a reason, another channel
    *(
        "Don't call me before 9",
        "please don't call me tomorrow",
        "Don't text me at night",
        "don't call me at work",
    ),
    *(
        "Don't call me, text me",
        "I don't want calls, please text me",
        "Stop calling. Text me instead.",
        "don't send anything yet",
    ),
    *(
        "You never text me back",
        "You don't call me anymore",
        "If you don't call me I will come by",
        "They never call me",
    ),
    *(
        "I got no more messages from you",
        "There are no more messages",
        "I have no more texts from you",
        "No need to call back",
    ),
    *(
        "I never received your text",
        "I didn't get your message",
        "Don't send the invoice by email",
        "No more questions, thanks",
    ),
    *(
        "Why did I stop getting your texts?",
        "I don't want to stop getting your texts",
        "I don't want to miss your messages",
        "Remove me as a driver, please",
        "No more questions",
    ),
    # What people reply
    *(
        "",
        " ",
        "😀",
        "👍",
        "YES",
        "yes please",
        "No",
        "no thanks",
        "ok",
        "Thanks!",
        "Help",
        "INFO",
        "Who is this?",
        "Wrong number",
    ),
    *(
        "C",
        "1",
        "Call me after 5 pm",
        "Sorry I missed you",
        "I'm driving",
        "Can we move it to Friday?",
        "How much is it?",
    ),
    *(
        "Start at 9?",
        "Let's start over",
        "fine",
        "Fine.",
        "Great, see you then",
        "Arrived",
        "It ends here https://example.com",
    ),
    *(
        "My address is 5 Bus Stop Road",
        "Bob\nThe Coffee Stop",
        "I am at the stop",
        "The doctor told me to rest",
        "stopwatch",
    ),
    *(
        "Stop payment on my check",
        "Stop & Shop parking lot",
        "I got your text saying STOP to opt out, what is this?",
    ),
    *(
        "Don't forget to text me",
        "Don't hesitate to call me",
        "Please don't cancel my appointment",
        "What if I reply stop?",
    ),
    *(
        "Cancel subscription",
        "How do I cancel?",
        "Are you still calling me?",
        "Never mind",
        "please do not send the package",
    ),
    # The bridge's own words, quoted
    "Liked “Hi Maya, we tried to reach you. Reply STOP to opt out.”",
    "Disliked “Reply STOP to opt out”",
    "👍 to “ Hi Maya, we tried to reach you. Reply STOP to opt out. ”",
    "Hi Maya, we tried to reach you. Reply STOP to opt out. ??",
    "A aimé « Répondez STOP pour vous désabonner »",
    # Spanish, French, German, Portuguese, Italian
    *(
        "Para mañana está bien",
        "no me llame antes de las 5",
        "No me llamen todavía",
        "No me manden la factura por correo",
    ),
    *(
        "El precio baja",
        "La parada está cerrada",
        "Alta calidad",
        "Cancelar mi cita de mañana",
        "Terminamos a las 5",
    ),
    *(
        "Arrêt maladie jusqu'à lundi",
        "L'arrêt de bus est fermé",
        "Fin du mois ça va",
        "Je n'ai plus de messages",
        "Annuler mon rdv",
    ),
    *("Ne m'appelez pas avant 10h", "Je ne veux pas recevoir le colis demain", "Supprimer la ligne 3"),
    *(
        "Die Bushaltestelle ist zu",
        "Mein Auto springt nicht mehr an",
        "Ich habe keine Nachrichten bekommen",
        "Ende des Monats passt",
    ),
    *(
        "Rufen Sie mich bitte nicht vor 10 an",
        "Schicken Sie mir keine Rechnung per Post",
        "Ich möchte mein Auto abmelden",
    ),
    *("Melden Sie mich für den Kurs ab", "Melden Sie mich an", "Schluss ist um 5"),
    *("Nehmen Sie mich morgen dran", "Wann hört das auf?", "Löschen Sie den Termin", "Stoppuhr"),
    *(
        "Sair às 5?",
        "Não me ligue antes das 9",
        "Não me mande a fatura",
        "Cancelar a consulta de amanhã",
        "Para de 5 a 6 pessoas",
    ),
    *(
        "Fine",
        "La fermata è chiusa",
        "Annulla l'appuntamento di domani",
        "Non mi chiami prima delle 9",
        "Va bene così",
    ),
    # Dutch, Swedish, Danish, Norwegian, Finnish, Polish
    *(
        "De bushalte is dicht",
        "Annuleer mijn afspraak",
        "Bel me niet voor 9 uur",
        "Einde van de maand is goed",
    ),
    *(
        "Busshållplatsen är stängd",
        "Avsluta mitt abonnemang i mars",
        "Slutet av månaden går bra",
        "Ring mig inte före 9",
    ),
    *("Slut på måneden passer", "Annuller min tid i morgen", "Avbestill timen min", "Ring meg ikke før 9"),
    *(
        "Milloin kokous alkaa?",
        "Loppu kuusta sopii",
        "Peruuta varaus 12",
        "Koniec miesiąca pasuje",
        "Anuluj moją wizytę",
    ),
    *("Proszę nie dzwonić do mnie jutro", "Przystanek jest zamknięty", "Kiedy to się kończy?"),
]
STARTS = [
    "START",
    "start.",
    "Unstop",
    "START 👍",
    "“start”",
    "Alta",
    "Aloita",
    "optin",
    "SUBSCRIBE",
    "Anmelden",
]
BUTTONS = [
    *(
        "Stop promotions",
        "STOP PROMOTIONS",
        "Arrêter les promotions",
        "Detener promociones",
        "Werbung stoppen",
    ),
    *(
        "Interromper promoções",
        "Interrompi promozioni",
        "Promoties stoppen",
        "Stoppa kampanjer",
        "Stop kampagner",
    ),
    *("Stopp reklame", "Lopeta mainokset", "Zatrzymaj promocje"),
]


def test_button_of_whatsapp_that_ends_promotions_is_an_opt_out() -> None:
    assert [text for text in BUTTONS if read_stop_request(text) != "stop"] == []
    others = ["Werbung", "Parar promociones de quién?", "Which promotions stop today?", "Promociones"]
    assert [text for text in others if read_stop_request(text) is not None] == []


def test_request_for_no_more_messages_is_recognized() -> None:
    assert [text for text in STOPS if read_stop_request(text) != "stop"] == []


def test_text_about_something_else_is_no_opt_out() -> None:
    assert [text for text in OTHERS if read_stop_request(text) is not None] == []


def test_start_word_alone_is_an_opt_in() -> None:
    assert [text for text in STARTS if read_stop_request(text) != "start"] == []


@pytest.mark.parametrize(
    "text", ["start please", "Start\nMaya", "let's start", "I'd like to subscribe to the newsletter"]
)
def test_start_word_with_other_words_is_no_opt_in(text: str) -> None:
    assert read_stop_request(text) is None


@given(
    st.sampled_from(["stop", "unsubscribe", "cancel", "arrêt", "abmelden", "baja", "wypisz"]),
    st.text(st.sampled_from(" .!?,;:-_*'\"()…\n\t😀🛑👍\u200b\u200f\ufe0f\u00ad"), max_size=8),
    st.text(st.sampled_from(" .!?,;:-_*'\"()…\n\t😀🛑👍\u200b\u200f\ufe0f\u00ad"), max_size=8),
    st.sampled_from([str.lower, str.upper, str.title]),
)
def test_a_stop_word_in_any_dress_is_recognized(word: str, before: str, after: str, dress: object) -> None:
    assert read_stop_request(before + dress(word) + after) == "stop"  # type: ignore[operator]


@given(st.text(max_size=3000))
def test_any_text_can_be_read(text: str) -> None:
    assert read_stop_request(text) in (None, "stop", "start")
